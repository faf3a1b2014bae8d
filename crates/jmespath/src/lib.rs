//! JMESPath, in the dialect of the JMESPath community, over JSON.
//!
//! The dialect has, besides what the first specification has, `let`, arithmetic, the root `$`, slices of strings, and more
//! functions. Grammar, values and error texts are those of the library that the reference uses.

mod eval;
mod functions;
mod lex;
mod parse;
mod value;

use std::fmt;

use self::parse::Node;
pub use self::value::{DEPTH_MAX, Value};

/// The longest expression, in bytes.
pub const EXPRESSION_BYTES_MAX: usize = 64 << 10;

/// Why an expression was refused, or why it could not be evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(String);

impl Error {
    fn new(text: impl Into<String>) -> Self {
        Error(text.into())
    }

    fn syntax(text: impl fmt::Display) -> Self {
        Error(format!("SyntaxError: {text}"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// A compiled expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression(Node);

impl Expression {
    /// Compiles an expression. Functions are only looked up when they are called.
    ///
    /// # Errors
    ///
    /// What is wrong with its syntax.
    pub fn new(text: &str) -> Result<Self, Error> {
        if text.len() > EXPRESSION_BYTES_MAX {
            return Err(Error::syntax(format_args!("expression of more than {EXPRESSION_BYTES_MAX} bytes")));
        }
        parse::parse(lex::lex(text)?).map(Expression)
    }

    /// The keys that lead to what it finds, if it is nothing but a path of keys.
    pub fn as_path(&self) -> Option<Vec<&str>> {
        let mut path = Vec::new();
        self.0.collect_path(&mut path).then_some(path)
    }

    /// Finds what the expression asks for in a document; null where there is nothing.
    ///
    /// # Errors
    ///
    /// A function that does not exist, or that was given what it does not take, a variable that is not defined, and work
    /// beyond the limits of an evaluation.
    pub fn search(&self, document: &Value) -> Result<Value, Error> {
        eval::search(&self.0, document)
    }
}

#[cfg(test)]
mod tests;
