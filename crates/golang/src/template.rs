//! Templates of Go's `text/template`, with the functions that `loki.process` gives them: Go's own, a few of the
//! reference's, and the text functions of sprig.
//!
//! A template is parsed once and executed for each line. Its data is a map of texts. Execution never panics and is bounded:
//! by the size of its output, by the turns of its loops, by its steps, by the bytes that its functions handle, and by its
//! depth.

mod exec;
mod lex;
mod parse;
#[cfg(test)]
mod tests;
mod time_value;
mod tree;
mod value;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use corten_signal::regex::GoRegex;

use parse::Definition;
use tree::{Command, List, Node, Operand, Pipe, Term};

pub(crate) use exec::{Exec, OUTPUT_BYTES_MAX};
pub(crate) use time_value::{Moment, duration_text};
pub(crate) use value::{Dict, ListKind, NESTING_MAX, Value, format, too_deep};

/// How many regular expressions a template keeps compiled.
const REGEXES_MAX: usize = 64;

/// What a template is executed with: a map of texts.
pub trait Data {
    /// The text of a name.
    fn get(&self, name: &[u8]) -> Option<Cow<'_, [u8]>>;

    /// Calls the function with each name and its text.
    fn each(&self, visit: &mut dyn FnMut(&[u8], &[u8]));

    /// Whether Go's type of the map is `map[string]string` rather than `map[string]interface {}`: functions that take maps
    /// then refuse it, and an absent name is an empty text for `index`.
    fn is_texts(&self) -> bool {
        false
    }
}

/// A parsed template.
pub struct Template {
    name: String,
    text: String,
    definitions: Vec<Definition>,
    main: usize,
    regexes: Mutex<HashMap<Vec<u8>, Arc<GoRegex>>>,
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Template").field(&self.text).finish()
    }
}

/// Why a template could not be parsed, in the words of Go's `text/template`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError(String);

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ParseError {}

/// Why a template could not be executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecError(String);

impl fmt::Display for ExecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ExecError {}

impl Template {
    /// Parses a template. The name stands in error texts.
    ///
    /// # Errors
    ///
    /// Go's; also what this implementation does not know: complex numbers and some functions of sprig.
    pub fn parse(name: &str, text: &str) -> Result<Self, ParseError> {
        let definitions = parse::parse(name, text).map_err(ParseError)?;
        let main = definitions.iter().position(|definition| definition.name == name).unwrap_or(0);
        Ok(Template {
            name: name.to_owned(),
            text: text.to_owned(),
            definitions,
            main,
            regexes: Mutex::new(HashMap::new()),
        })
    }

    /// Executes the template and appends its output, of at most 1 MiB, to `out`. After an error what was appended means
    /// nothing.
    ///
    /// # Errors
    ///
    /// What Go's `text/template` and its functions refuse, and what goes beyond the limits.
    pub fn execute(&self, data: &dyn Data, out: &mut Vec<u8>) -> Result<(), ExecError> {
        Exec::new(self, data, out).run(self.main).map_err(ExecError)
    }

    /// The names that the template may ask its data for; nothing if it may ask for any.
    pub fn names(&self) -> Option<Vec<&str>> {
        let mut names = Names { found: Vec::new(), any: false };
        for definition in &self.definitions {
            names.list(&definition.list);
        }
        names.found.sort_unstable();
        names.found.dedup();
        (!names.any).then_some(names.found)
    }

    /// The compiled expression of a pattern.
    fn regex(&self, pattern: &[u8]) -> Result<Arc<GoRegex>, String> {
        let mut regexes = self.regexes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(regex) = regexes.get(pattern) {
            return Ok(Arc::clone(regex));
        }
        let text = std::str::from_utf8(pattern)
            .map_err(|_| format!("error parsing regexp: invalid UTF-8: `{}`", String::from_utf8_lossy(pattern)))?;
        let regex = Arc::new(GoRegex::new(text).map_err(|error| error.to_string())?);
        if regexes.len() >= REGEXES_MAX {
            regexes.clear();
        }
        regexes.insert(pattern.to_vec(), Arc::clone(&regex));
        Ok(regex)
    }
}

/// Looks for the names that a template reads. A field of anything may be one of the data, so all first names of fields are
/// taken; the data used as a whole makes it any.
struct Names<'a> {
    found: Vec<&'a str>,
    any: bool,
}

impl<'a> Names<'a> {
    fn list(&mut self, list: &'a List) {
        for node in &list.nodes {
            match node {
                Node::Text(_) | Node::Break | Node::Continue => {}
                Node::Action(pipe) => self.pipe(pipe),
                Node::Branch { branches, otherwise, .. } => {
                    for (pipe, list) in branches {
                        self.pipe(pipe);
                        self.list(list);
                    }
                    self.lists(otherwise.as_ref());
                }
                Node::Range { pipe, list, otherwise } => {
                    self.pipe(pipe);
                    self.list(list);
                    self.lists(otherwise.as_ref());
                }
                Node::Template { pipe, .. } => {
                    if let Some(pipe) = pipe {
                        self.pipe(pipe);
                    }
                }
            }
        }
    }

    fn lists(&mut self, list: Option<&'a List>) {
        if let Some(list) = list {
            self.list(list);
        }
    }

    fn pipe(&mut self, pipe: &'a Pipe) {
        for Command { operands } in &pipe.commands {
            for operand in operands {
                self.operand(operand);
            }
        }
    }

    fn operand(&mut self, operand: &'a Operand) {
        match &operand.term {
            Term::Dot => self.any = true,
            Term::Field(names) | Term::Variable(_, names) if !names.is_empty() => {
                self.found.extend(names.first().map(String::as_str));
            }
            // What other variables hold was read where they got it.
            Term::Variable(name, _) => self.any |= &**name == "$",
            Term::Field(_) => {}
            Term::Pipe(pipe) => self.pipe(pipe),
            Term::Chain(inner, names) => {
                self.operand(inner);
                self.found.extend(names.first().map(String::as_str));
            }
            Term::Nil | Term::Bool(_) | Term::Number(_) | Term::Text(..) | Term::Function(_) => {}
        }
    }
}
