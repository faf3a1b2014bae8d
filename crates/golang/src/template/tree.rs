//! The tree of a template.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use bytes::Bytes;

use crate::functions::Function;

/// What is carried out or written, in order.
#[derive(Debug, Default)]
pub(super) struct List {
    pub(super) nodes: Vec<Node>,
}

#[derive(Debug)]
pub(super) enum Node {
    Text(Bytes),
    Action(Pipe),
    /// `if` and `with`: the first branch whose pipe is true, else the last list.
    Branch {
        with: bool,
        branches: Vec<(Pipe, List)>,
        otherwise: Option<List>,
    },
    Range {
        pipe: Pipe,
        list: List,
        otherwise: Option<List>,
    },
    Template {
        pos: usize,
        name: String,
        pipe: Option<Pipe>,
    },
    Break,
    Continue,
}

impl List {
    /// Whether it holds nothing but white space.
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.iter().all(|node| match node {
            Node::Text(text) => text.trim_ascii().is_empty(),
            _ => false,
        })
    }
}

/// Commands, each of which gets the value of the one before, and the variables that get the last one.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) pos: usize,
    /// Whether the variables exist already.
    pub(super) assign: bool,
    pub(super) variables: Vec<Arc<str>>,
    pub(super) commands: Vec<Command>,
}

#[derive(Debug)]
pub(super) struct Command {
    /// At least one.
    pub(super) operands: Vec<Operand>,
}

#[derive(Debug)]
pub(super) struct Operand {
    pub(super) pos: usize,
    pub(super) term: Term,
}

#[derive(Debug)]
pub(super) enum Term {
    Dot,
    Nil,
    Bool(bool),
    Number(Number),
    /// A text, and how it was written.
    Text(Bytes, String),
    /// The name of a field, and of fields of it.
    Field(Vec<String>),
    /// The name of a variable, and of fields of it.
    Variable(Arc<str>, Vec<String>),
    Function(&'static Function),
    Pipe(Box<Pipe>),
    /// Fields of what is no field and no variable.
    Chain(Box<Operand>, Vec<String>),
}

/// A number with all the types that can hold it.
#[derive(Debug)]
pub(super) struct Number {
    pub(super) text: String,
    pub(super) int: Option<i64>,
    pub(super) uint: Option<u64>,
    pub(super) float: Option<f64>,
}

impl Number {
    /// Whether it is written as a floating-point number.
    pub(super) fn is_written_as_float(&self) -> bool {
        let text = &self.text;
        let hex_int = (text.starts_with("0x") || text.starts_with("0X")) && !text.contains(['p', 'P']);
        !hex_int && !text.starts_with('\'') && text.contains(['.', 'e', 'E', 'p', 'P'])
    }
}

impl Term {
    /// Whether it can begin a command that gets a value of the one before.
    pub(super) fn is_executable(&self) -> bool {
        !matches!(self, Term::Dot | Term::Nil | Term::Bool(_) | Term::Number(_) | Term::Text(..))
    }
}

fn write_fields(f: &mut fmt::Formatter<'_>, fields: &[String]) -> fmt::Result {
    for field in fields {
        f.write_char('.')?;
        f.write_str(field)?;
    }
    Ok(())
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.term {
            Term::Dot => f.write_str("."),
            Term::Nil => f.write_str("nil"),
            Term::Bool(value) => write!(f, "{value}"),
            Term::Number(number) => f.write_str(&number.text),
            Term::Text(_, quoted) => f.write_str(quoted),
            Term::Field(fields) => write_fields(f, fields),
            Term::Variable(name, fields) => {
                f.write_str(name)?;
                write_fields(f, fields)
            }
            Term::Function(function) => f.write_str(function.name),
            Term::Pipe(pipe) => write!(f, "({pipe})"),
            Term::Chain(operand, fields) => {
                write!(f, "{operand}")?;
                write_fields(f, fields)
            }
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, operand) in self.operands.iter().enumerate() {
            let space = if index > 0 { " " } else { "" };
            write!(f, "{space}{operand}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.variables.is_empty() {
            write!(f, "{}", self.variables.join(", "))?;
            f.write_str(if self.assign { " = " } else { " := " })?;
        }
        for (index, command) in self.commands.iter().enumerate() {
            let bar = if index > 0 { " | " } else { "" };
            write!(f, "{bar}{command}")?;
        }
        Ok(())
    }
}
