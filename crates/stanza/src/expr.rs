//! The language of conditions and computed values: expr, as far as entries are concerned.
//!
//! `attributes.status >= 500 and not (body matches "^health")`. A program is read and checked once, with positions in
//! what it refuses, and then run over entries: what it reads it refers to, and patterns that are written out are
//! compiled.

mod check;
mod eval;
mod functions;
mod ops;
mod parse;
mod print;
mod token;

use std::fmt;

use crate::entry::Entry;
use crate::value::{Text, Value};

use self::check::Kind;
use self::eval::Run;
pub(crate) use self::functions::duration;
use self::parse::Node;
pub use self::print::go_text;

/// How deep a program may nest.
pub const DEPTH_MAX: u32 = 100;
/// How many parts a program may have.
pub const NODES_MAX: usize = 10_000;
/// How long a program may be, in bytes.
pub const TEXT_BYTES_MAX: usize = 64 << 10;
/// How many values a run may make.
pub const VALUES_MAX: usize = 1_000_000;

/// Why a program was refused, or failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExprError {
    /// What is wrong.
    pub message: String,
    /// Where: the line and the column, from 1 on; 0 where that is not known.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
    snippet: String,
}

impl ExprError {
    /// An error at a character of a text.
    fn at(message: impl Into<String>, text: &str, at: u32) -> Self {
        let (mut line, mut column, mut start) = (1, 0, 0);
        for (count, (offset, c)) in text.char_indices().enumerate() {
            if count == at as usize {
                break;
            }
            if c == '\n' {
                (line, column, start) = (line + 1, 0, offset + 1);
            } else {
                column += 1;
            }
        }
        let shown = text[start..].split('\n').next().unwrap_or_default().replace('\t', " ");
        let snippet =
            if shown.is_empty() { String::new() } else { format!("\n | {shown}\n | {}^", ".".repeat(column)) };
        ExprError { message: message.into(), line, column: column + 1, snippet }
    }

    fn nowhere(message: impl Into<String>) -> Self {
        ExprError { message: message.into(), line: 0, column: 0, snippet: String::new() }
    }
}

impl fmt::Display for ExprError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.snippet.is_empty() {
            return f.write_str(&self.message);
        }
        write!(f, "{} ({}:{}){}", self.message, self.line, self.column, self.snippet)
    }
}

impl std::error::Error for ExprError {}

/// A program over an entry.
pub struct Program {
    text: Box<str>,
    root: Node,
    slots: usize,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Program").field(&self.text).finish()
    }
}

impl Program {
    /// Reads a program.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and where.
    pub fn new(text: &str) -> Result<Self, ExprError> {
        Self::compile(text).map(|(program, _)| program)
    }

    /// Reads a condition: a program whose value is true or false.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and where.
    pub fn condition(text: &str) -> Result<Self, ExprError> {
        let (program, kind) = Self::compile(text)?;
        match kind {
            Kind::Any | Kind::Bool => Ok(program),
            other => Err(ExprError::nowhere(format!("expected bool, but got {}", other.name()))),
        }
    }

    fn compile(text: &str) -> Result<(Self, Kind), ExprError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(ExprError::nowhere(format!("an expression has at most {TEXT_BYTES_MAX} bytes")));
        }
        let failed = |(at, message): (u32, String)| ExprError::at(message, text, at);
        let (mut root, slots) = parse::parse(text).map_err(failed)?;
        let kind = check::check(&mut root).map_err(failed)?;
        Ok((Program { text: text.into(), root, slots }, kind))
    }

    /// The text that it was read from.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Runs it over an entry.
    ///
    /// # Errors
    ///
    /// Why there is no value, and where.
    pub fn run(&self, entry: &Entry) -> Result<Value, ExprError> {
        let run = Run::new(entry, self.slots).value(&self.root);
        run.map(eval::Val::into_value).map_err(|failed| self.failed(failed))
    }

    /// Runs a condition over an entry.
    ///
    /// # Errors
    ///
    /// Why there is no value, and where.
    pub fn holds(&self, entry: &Entry) -> Result<bool, ExprError> {
        let value = Run::new(entry, self.slots).value(&self.root).map_err(|failed| self.failed(failed))?;
        match value.get() {
            Value::Bool(holds) => Ok(*holds),
            Value::Null => Ok(false),
            other => {
                Err(self.failed(eval::Fail::At(self.root.at, format!("invalid operation: bool({})", other.go_type()))))
            }
        }
    }

    fn failed(&self, failed: eval::Fail) -> ExprError {
        match failed {
            eval::Fail::At(at, message) => ExprError::at(message, &self.text, at),
            eval::Fail::Chain => ExprError::nowhere("nil"),
        }
    }
}

/// A text with programs in it: `sent by EXPR(attributes.user)`.
#[derive(Debug)]
pub struct Template {
    /// What stands before the programs, and behind the last.
    plain: Vec<Text>,
    programs: Vec<Program>,
}

const START: &str = "EXPR(";

impl Template {
    /// Reads a text.
    ///
    /// # Errors
    ///
    /// What is wrong with a program in it.
    pub fn new(text: &str) -> Result<Self, ExprError> {
        let (mut plain, mut programs) = (Vec::new(), Vec::new());
        let mut rest = text;
        while let Some(start) = rest.find(START) {
            // It ends at the last parenthesis before the next one begins.
            let inner = &rest[start + START.len()..];
            let next = inner.find(START).unwrap_or(inner.len());
            let Some(end) = inner[..next].rfind(')') else { break };
            programs.push(Program::new(&inner[..end])?);
            plain.push(Text::from(&rest[..start]));
            rest = &inner[end + 1..];
        }
        plain.push(Text::from(rest));
        Ok(Template { plain, programs })
    }

    /// The text, with the values of the programs in it.
    ///
    /// # Errors
    ///
    /// A program fails, or its value is no text.
    pub fn render(&self, entry: &Entry) -> Result<Text, String> {
        if let ([text], []) = (&*self.plain, &*self.programs) {
            return Ok(text.clone());
        }
        let mut out = Vec::new();
        for (plain, program) in self.plain.iter().zip(&self.programs) {
            out.extend_from_slice(plain);
            match program.run(entry).map_err(|error| format!("render embedded expression: {error}"))? {
                Value::Str(text) => out.extend_from_slice(&text),
                other => return Err(format!("embedded expression returned non-string {}", go_text(&other))),
            }
        }
        out.extend_from_slice(self.plain.last().map(|text| &**text).unwrap_or_default());
        Ok(out.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry() -> Entry {
        let mut entry = Entry::of(Value::str("hello world"), 0);
        entry.attributes_mut().put(Text::of("status"), Value::Int(503));
        entry.attributes_mut().put(Text::of("tags"), Value::List(vec![Value::str("a"), Value::str("b")]));
        entry
    }

    #[test]
    fn a_program_that_is_refused_is_refused_with_a_place() {
        for (text, message, place) in [
            ("body ==", "unexpected token EOF", (1, 7)),
            ("body\n  == )", "unexpected token Bracket(\")\")", (2, 6)),
            ("1 + \"a\"", "invalid operation: + (mismatched types int and string)", (1, 3)),
            ("body matches \"(\"", "error parsing regexp: missing closing ): `(`", (1, 6)),
            ("'abc", "literal not terminated", (1, 5)),
        ] {
            let error = Program::new(text).unwrap_err();
            assert_eq!((&*error.message, (error.line, error.column)), (message, place), "{text}");
        }
        assert_eq!(Program::condition("1").unwrap_err().to_string(), "expected bool, but got int");
    }

    #[test]
    fn programs_have_limits() {
        let deep =
            |sign: &str, count: usize| sign.repeat(count) + "1" + &")".repeat(if sign == "(" { count } else { 0 });
        assert!(Program::new(&deep("(", 40)).is_ok());
        assert!(Program::new(&deep("(", 20_000)).is_err());
        assert!(Program::new(&deep("-", 20_000)).is_err());
        assert!(Program::new(&("1".to_owned() + &"+1".repeat(20_000))).is_err());
        assert!(Program::new(&("true".to_owned() + &" or true".repeat(2_000))).unwrap().holds(&entry()).unwrap());
        assert!(Program::new("len(1..1000000000)").unwrap().run(&entry()).is_err());
        assert!(Program::new("repeat(body, 1000000)").unwrap().run(&entry()).is_err());
        // What a loop makes of what it made neither nests nor grows without end.
        assert!(Program::new("reduce(1..100000, [#acc])").unwrap().run(&entry()).is_err());
        assert!(Program::new("reduce(1..100000, [{'a': #acc}])").unwrap().run(&entry()).is_err());
        assert!(Program::new("reduce(1..100, #acc + #acc, body)").unwrap().run(&entry()).is_err());
        assert!(Program::new("len(sum(map(1..100000, repeat('x', 90000))))").unwrap().run(&entry()).is_err());
        assert!(Program::new("reduce(1..100, [#acc])").unwrap().run(&entry()).is_ok());
    }

    #[test]
    fn numbers_are_printed_as_go_prints_them() {
        for (text, printed) in [
            ("string(0.1 + 0.2)", "0.30000000000000004"),
            ("string(999999.5)", "999999.5"),
            ("string(1000000.0)", "1e+06"),
            ("string(123456789.0)", "1.23456789e+08"),
            ("string(-1e20)", "-1e+20"),
            ("string(0.00001)", "1e-05"),
            ("string(1e300 * 1e300)", "+Inf"),
            // Each byte that is no text has a sign of its own in JSON.
            ("toJSON(fromBase64('YeKCYv8='))", r#""a\ufffd\ufffdb\ufffd""#),
            ("toJSON(fromBase64('PGE+Jg=='))", r#""\u003ca\u003e\u0026""#),
        ] {
            assert_eq!(Program::new(text).unwrap().run(&entry()), Ok(Value::str(printed)), "{text}");
        }
    }

    #[test]
    fn a_group_has_all_that_reads_alike_however_many_groups_there_are() {
        let run = |text: &str| Program::new(text).unwrap().run(&entry());
        assert_eq!(run("len(groupBy(1..100000, #))"), Ok(Value::Int(100_000)));
        assert_eq!(run("len(groupBy([1, '1', 2, '1'], #)['1'])"), Ok(Value::Int(3)));
    }

    #[test]
    fn a_condition_that_reads_and_compares_sees_what_there_is() {
        for (text, expected) in [
            ("attributes.status >= 500 and not (body matches '^health')", true),
            ("attributes.missing == nil", true),
            ("any(attributes.tags, # == 'b')", true),
            ("all(attributes.tags, {# startsWith 'a'})", false),
            ("'b' in attributes.tags", true),
            ("'status' in attributes", true),
            ("(attributes.missing ?? 1) + 1 == 2", true),
        ] {
            assert_eq!(Program::condition(text).unwrap().holds(&entry()), Ok(expected), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(?s).{0,40}") {
            if let Ok(program) = Program::new(&text) {
                let _ = program.run(&entry());
            }
            let _ = Template::new(&text);
        }

        #[test]
        fn no_sequence_of_tokens_makes_it_panic(tokens in prop::collection::vec(prop::sample::select(&[
            "body", "attributes", "attributes.tags", "attributes.status", ".a", "?.b", "[", "]", "[0]", "[1:]", "(", ")", "{", "}",
            "+", "-", "*", "/", "%", "**", "==", "!=", "<", ">=", "and", "or", "not", "in", "matches", "contains", "??", "?", ":",
            "..", "|", "len(", "filter(", "map(", "any(", "reduce(", "sum(", "split(", "#", "#acc", ",", "1", "0", "2.5", "'a'",
            "\"(b\"", "nil", "true", "let x = ", ";", "x", "timestamp", "now()", "duration('1h')", ".Year()", "sort(", "1..3",
            "int(", "toJSON(", "groupBy(", "if", "else",
        ][..]), 0..14)) {
            let text = tokens.join(" ");
            if let Ok(program) = Program::new(&text) {
                let _ = program.run(&entry());
                let _ = program.holds(&entry());
            }
        }
    }
}
