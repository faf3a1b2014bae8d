//! What is wrong with statements, and what goes wrong when they run.

use std::fmt;

/// Something wrong at a place of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// In bytes from the start of the statement.
    pub(crate) at: usize,
    pub(crate) what: String,
}

impl Fault {
    pub(crate) fn new(at: usize, what: impl Into<String>) -> Self {
        Fault { at, what: what.into() }
    }
}

/// What a mistake is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A statement.
    Statement,
    /// A condition.
    Condition,
    /// An expression by itself.
    Value,
}

/// Why a statement, a condition or an expression is refused when it is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OttlError {
    /// What the mistake is in.
    pub part: Part,
    /// Which one it is of those that were given together, from 0 on.
    pub index: usize,
    /// Where in it the mistake is, in bytes.
    pub offset: usize,
    /// Where in it the mistake is, in characters from 1 on.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// The statement.
    pub source: String,
}

impl OttlError {
    pub(crate) fn new(part: Part, index: usize, source: &str, fault: Fault) -> Self {
        let offset = (0..=fault.at.min(source.len())).rev().find(|at| source.is_char_boundary(*at)).unwrap_or(0);
        let column = source[..offset].chars().count() + 1;
        OttlError { part, index, offset, column, message: fault.what, source: source.to_owned() }
    }
}

impl fmt::Display for OttlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column {} of `{}`: {}", self.column, self.source, self.message)
    }
}

impl std::error::Error for OttlError {}

/// Why a statement could not be executed for an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvalError(String);

impl EvalError {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        EvalError(what.into())
    }
}

impl fmt::Display for EvalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for EvalError {}

impl From<String> for EvalError {
    fn from(what: String) -> Self {
        EvalError(what)
    }
}

impl From<&str> for EvalError {
    fn from(what: &str) -> Self {
        EvalError(what.to_owned())
    }
}
