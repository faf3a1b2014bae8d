//! Carrying out a template.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;

use super::tree::{Command, List as Nodes, Node, Number, Operand, Pipe, Term};
use super::value::{Dict, List, ListKind, Value};
use super::{Data, Template};
use crate::functions::{self, Function, Special, Type};

/// The largest text that a function may make, in bytes, whatever the data.
pub(crate) const OUTPUT_BYTES_MAX: usize = 16 << 20;
/// The largest output, and the largest text that a function may make, in bytes: so much, and four times the longest text of
/// the data that was read. A line of megabytes must have its template carried out, and a short one must not grow to them.
const OUTPUT_BYTES_BASE: usize = 1 << 20;
const OUTPUT_TIMES_MAX: usize = 4;
/// How many turns all loops of an execution may take together.
const TURNS_MAX: usize = 10_000;
/// How many actions, operands and calls an execution may take.
const STEPS_MAX: usize = 1_000_000;
/// How many bytes the functions of an execution may read and write together: so much, and 32 times the longest text of the
/// data that was read.
const WORK_BYTES_BASE: usize = 32 << 20;
const WORK_TIMES_MAX: usize = 32;
/// How deep templates, blocks and parentheses may nest in execution.
const DEPTH_MAX: usize = 120;

/// Why a list was left.
#[derive(Debug)]
pub(super) enum Flow {
    Break,
    Continue,
    Error(String),
}

type Done<T = ()> = Result<T, Flow>;

/// A variable.
struct Variable {
    name: Arc<str>,
    value: Value,
}

/// The name of the variable that holds the data.
fn dollar() -> Arc<str> {
    static DOLLAR: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from("$"));
    Arc::clone(&DOLLAR)
}

/// An execution.
pub(crate) struct Exec<'a> {
    set: &'a Template,
    /// Which template of the set is carried out.
    current: usize,
    data: &'a dyn Data,
    /// The data as a map, once it was needed as one.
    root: Option<Value>,
    out: &'a mut Vec<u8>,
    out_start: usize,
    variables: Vec<Variable>,
    /// All maps. They may refer to each other in circles, so they are emptied at the end.
    dicts: Vec<Rc<Dict>>,
    turns: usize,
    steps: usize,
    work: usize,
    /// The length of the longest text of the data that was read, in bytes.
    longest: usize,
    depth: usize,
}

impl Drop for Exec<'_> {
    fn drop(&mut self) {
        for dict in &self.dicts {
            dict.map.take();
        }
    }
}

/// Where an error is, as Go says it.
struct At<'a> {
    pos: usize,
    context: &'a dyn Display,
}

impl<'a> Exec<'a> {
    pub(super) fn new(set: &'a Template, data: &'a dyn Data, out: &'a mut Vec<u8>) -> Self {
        let out_start = out.len();
        Exec {
            set,
            current: 0,
            data,
            root: None,
            out,
            out_start,
            variables: Vec::new(),
            dicts: Vec::new(),
            turns: 0,
            steps: 0,
            work: 0,
            longest: 0,
            depth: 0,
        }
    }

    /// Carries out the template of that place in the set.
    pub(super) fn run(&mut self, index: usize) -> Result<(), String> {
        self.current = index;
        self.variables.push(Variable { name: dollar(), value: Value::Root });
        let set = self.set;
        match self.walk(&Value::Root, &set.definitions[index].list) {
            Ok(()) => Ok(()),
            Err(Flow::Error(message)) => Err(message),
            // The parser lets these stand only within a range.
            Err(Flow::Break | Flow::Continue) => Err("break outside of a range".to_owned()),
        }
    }

    /// The regular expression of a text.
    pub(crate) fn regex(&self, pattern: &[u8]) -> Result<Arc<corten_signal::regex::GoRegex>, String> {
        self.set.regex(pattern)
    }

    // Limits.

    /// Accounts for bytes that a function handles.
    pub(crate) fn charge(&mut self, bytes: usize) -> Result<(), String> {
        self.work = self.work.saturating_add(bytes);
        let max = WORK_BYTES_BASE.saturating_add(self.longest.saturating_mul(WORK_TIMES_MAX));
        if self.work > max {
            return Err(format!("template handles more than {max} bytes"));
        }
        Ok(())
    }

    /// How long the output and the result of a function may be, in bytes.
    fn output_max(&self) -> usize {
        OUTPUT_BYTES_BASE.saturating_add(self.longest.saturating_mul(OUTPUT_TIMES_MAX)).min(OUTPUT_BYTES_MAX)
    }

    fn step(&mut self) -> Result<(), String> {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err(format!("template takes more than {STEPS_MAX} steps"));
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Done {
        let max = self.output_max();
        if self.out.len() - self.out_start + bytes.len() > max {
            return Err(Flow::Error(format!("output is larger than {max} bytes")));
        }
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    // Values.

    /// A new list.
    pub(crate) fn list(&mut self, kind: ListKind, items: Vec<Value>) -> Result<Value, String> {
        List::new(kind, items).map(Value::List).ok_or_else(super::value::too_deep)
    }

    /// A new map.
    pub(crate) fn dict(&mut self, map: BTreeMap<Bytes, Value>) -> Value {
        self.new_dict(map, false)
    }

    /// A new map whose values are texts.
    pub(crate) fn text_dict(&mut self, map: BTreeMap<Bytes, Value>) -> Value {
        self.new_dict(map, true)
    }

    fn new_dict(&mut self, map: BTreeMap<Bytes, Value>, texts: bool) -> Value {
        let dict = Rc::new(Dict { texts, map: RefCell::new(map) });
        self.dicts.push(Rc::clone(&dict));
        Value::Dict(dict)
    }

    /// The data as a map.
    fn root(&mut self) -> Value {
        if let Some(root) = &self.root {
            return root.clone();
        }
        let mut map = BTreeMap::new();
        let mut longest = self.longest;
        self.data.each(&mut |name, value| {
            longest = longest.max(value.len());
            map.insert(Bytes::copy_from_slice(name), Value::text(value));
        });
        self.longest = longest;
        let root = self.new_dict(map, self.data.is_texts());
        self.root = Some(root.clone());
        root
    }

    fn own(&mut self, value: Value) -> Value {
        if matches!(value, Value::Root) { self.root() } else { value }
    }

    // Errors.

    fn error<T>(&self, at: &At<'_>, message: impl Display) -> Done<T> {
        let before = &self.set.text[..at.pos.min(self.set.text.len())];
        let line = 1 + before.bytes().filter(|byte| *byte == b'\n').count();
        let column = before.len() - before.rfind('\n').map_or(0, |at| at + 1);
        Err(Flow::Error(format!(
            "template: {}:{line}:{column}: executing {} at <{}>: {message}",
            self.set.name,
            crate::text::quote(self.set.definitions[self.current].name.as_bytes()),
            at.context
        )))
    }

    // Lists.

    fn walk(&mut self, dot: &Value, nodes: &'a Nodes) -> Done {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Flow::Error(format!("exceeded maximum template depth ({DEPTH_MAX})")));
        }
        for node in &nodes.nodes {
            self.step().map_err(Flow::Error)?;
            match node {
                Node::Text(text) => self.write(text)?,
                Node::Action(pipe) => {
                    let value = self.pipe(dot, pipe)?;
                    if pipe.variables.is_empty() {
                        self.print(value)?;
                    }
                }
                Node::Branch { with, branches, otherwise } => {
                    self.branch(dot, *with, branches, otherwise.as_ref())?;
                }
                Node::Range { pipe, list, otherwise } => self.range(dot, pipe, list, otherwise.as_ref())?,
                Node::Template { pos, name, pipe } => self.template(dot, *pos, name, pipe.as_ref())?,
                Node::Break => return Err(Flow::Break),
                Node::Continue => return Err(Flow::Continue),
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn print(&mut self, value: Value) -> Done {
        match self.own(value) {
            Value::Nil => self.write(b"<no value>"),
            Value::Text(text) => self.write(&text),
            value => {
                let text = value.print().map_err(Flow::Error)?;
                self.write(&text)
            }
        }
    }

    fn branch(&mut self, dot: &Value, with: bool, branches: &'a [(Pipe, Nodes)], otherwise: Option<&'a Nodes>) -> Done {
        let mark = self.variables.len();
        for (pipe, list) in branches {
            let value = self.pipe(dot, pipe)?;
            if self.truth(&value) {
                self.walk(if with { &value } else { dot }, list)?;
                self.variables.truncate(mark);
                return Ok(());
            }
        }
        if let Some(list) = otherwise {
            self.walk(dot, list)?;
        }
        self.variables.truncate(mark);
        Ok(())
    }

    /// Whether a condition takes a value as true.
    fn truth(&mut self, value: &Value) -> bool {
        match value {
            Value::Root => self.root().is_true(),
            value => value.is_true(),
        }
    }

    fn range(&mut self, dot: &Value, pipe: &'a Pipe, list: &'a Nodes, otherwise: Option<&'a Nodes>) -> Done {
        let mark = self.variables.len();
        let at = At { pos: pipe.pos, context: pipe };
        let value = self.pipe(dot, pipe)?;
        let value = self.own(value);
        let names = pipe.variables.len();
        let inner = self.variables.len();
        let mut empty = true;
        match &value {
            Value::Nil => {}
            Value::Int(_) | Value::Int64(_) | Value::Uint8(_) => {
                let (count, wrap): (i64, fn(i64) -> Value) = match value {
                    Value::Int64(count) => (count, Value::Int64),
                    Value::Uint8(count) => (i64::from(count), |turn| Value::Uint8(turn as u8)),
                    Value::Int(count) => (count, Value::Int),
                    _ => (0, Value::Int),
                };
                if names > 1 {
                    return self.error(&at, format_args!("can't use {count} to iterate over more than one variable"));
                }
                for turn in 0..count {
                    empty = false;
                    if !self.turn(pipe, list, inner, Value::Nil, wrap(turn))? {
                        break;
                    }
                }
            }
            Value::List(items) => {
                for (index, item) in items.items.iter().enumerate() {
                    empty = false;
                    if !self.turn(pipe, list, inner, Value::Int(index as i64), item.clone())? {
                        break;
                    }
                }
            }
            Value::Dict(dict) => {
                let fields: Vec<(Bytes, Value)> =
                    dict.map.borrow().iter().map(|(name, value)| (name.clone(), value.clone())).collect();
                for (name, value) in fields {
                    empty = false;
                    if !self.turn(pipe, list, inner, Value::Text(name), value)? {
                        break;
                    }
                }
            }
            other => {
                let shown = other.print().map_err(Flow::Error)?;
                let shown = String::from_utf8_lossy(&shown).into_owned();
                return self.error(&at, format_args!("range can't iterate over {shown}"));
            }
        }
        if empty && let Some(list) = otherwise {
            self.walk(dot, list)?;
        }
        self.variables.truncate(mark);
        Ok(())
    }

    /// One turn of a range; whether there are more.
    fn turn(&mut self, pipe: &'a Pipe, list: &'a Nodes, mark: usize, index: Value, item: Value) -> Done<bool> {
        self.turns += 1;
        if self.turns > TURNS_MAX {
            return Err(Flow::Error(format!("loops take more than {TURNS_MAX} turns")));
        }
        let mut values = [Some(index), Some(item.clone())];
        // A single variable gets the item.
        let used = if pipe.variables.len() == 1 { &mut values[1..] } else { &mut values[..] };
        for (offset, (name, value)) in pipe.variables.iter().zip(used).enumerate() {
            let value = value.take().unwrap_or(Value::Nil);
            if pipe.assign {
                self.assign(name, value)?;
            } else if let Some(variable) = self.variables.get_mut(mark - pipe.variables.len() + offset) {
                variable.value = value;
            }
        }
        let depth = self.depth;
        let flow = self.walk(&item, list);
        self.variables.truncate(mark);
        self.depth = depth;
        match flow {
            Ok(()) | Err(Flow::Continue) => Ok(true),
            Err(Flow::Break) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn template(&mut self, dot: &Value, pos: usize, name: &str, pipe: Option<&'a Pipe>) -> Done {
        let set = self.set;
        let Some(index) = set.definitions.iter().position(|known| known.name == name) else {
            let name = crate::text::quote(name.as_bytes());
            let context = format!("{{{{template {name}}}}}");
            return self.error(&At { pos, context: &context }, format_args!("template {name} not defined"));
        };
        let dot = match pipe {
            Some(pipe) => self.pipe(dot, pipe)?,
            None => Value::Nil,
        };
        let outer = std::mem::replace(&mut self.current, index);
        let variables = std::mem::take(&mut self.variables);
        self.variables.push(Variable { name: dollar(), value: dot.clone() });
        self.walk(&dot, &set.definitions[index].list)?;
        self.variables = variables;
        self.current = outer;
        Ok(())
    }

    // Pipelines.

    fn assign(&mut self, name: &str, value: Value) -> Done {
        match self.variables.iter_mut().rev().find(|variable| *variable.name == *name) {
            Some(variable) => {
                variable.value = value;
                Ok(())
            }
            None => self.error(&At { pos: 0, context: &name }, format_args!("undefined variable: {name}")),
        }
    }

    fn pipe(&mut self, dot: &Value, pipe: &'a Pipe) -> Done<Value> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Flow::Error(format!("exceeded maximum template depth ({DEPTH_MAX})")));
        }
        let mut value = None;
        for command in &pipe.commands {
            value = Some(self.command(dot, command, value)?);
        }
        let value = value.unwrap_or(Value::Nil);
        for name in &pipe.variables {
            if pipe.assign {
                self.assign(name, value.clone())?;
            } else {
                self.variables.push(Variable { name: Arc::clone(name), value: value.clone() });
            }
        }
        self.depth -= 1;
        Ok(value)
    }

    fn command(&mut self, dot: &Value, command: &'a Command, last: Option<Value>) -> Done<Value> {
        self.step().map_err(Flow::Error)?;
        let [first, operands @ ..] = &command.operands[..] else { return Ok(Value::Nil) };
        let at = At { pos: first.pos, context: first };
        match &first.term {
            Term::Field(names) => return self.fields(dot, dot.clone(), names, &at, operands, last),
            Term::Chain(inner, names) => {
                let value = self.chained(dot, inner, &at)?;
                return self.fields(dot, value, names, &at, operands, last);
            }
            Term::Variable(name, names) => {
                let value = self.variable(name, &at)?;
                if !names.is_empty() {
                    return self.fields(dot, value, names, &at, operands, last);
                }
                self.not_a_function(first, operands, last.as_ref())?;
                return Ok(value);
            }
            Term::Function(function) => {
                let call = At { pos: first.pos, context: command };
                return self.call(dot, function, None, [&at, &call], operands, last);
            }
            _ => self.not_a_function(first, operands, last.as_ref())?,
        }
        match &first.term {
            Term::Pipe(pipe) => self.pipe(dot, pipe),
            Term::Dot => Ok(dot.clone()),
            Term::Nil => self.error(&at, "nil is not a command"),
            Term::Bool(value) => Ok(Value::Bool(*value)),
            Term::Number(number) => self.constant(number, &at),
            Term::Text(text, _) => Ok(Value::Text(text.clone())),
            _ => Ok(Value::Nil),
        }
    }

    fn not_a_function(&mut self, first: &Operand, operands: &[Operand], last: Option<&Value>) -> Done {
        if operands.is_empty() && last.is_none() {
            return Ok(());
        }
        let at = At { pos: first.pos, context: first };
        self.error(&at, format_args!("can't give argument to non-function {first}"))
    }

    fn variable(&mut self, name: &str, at: &At<'_>) -> Done<Value> {
        match self.variables.iter().rev().find(|variable| *variable.name == *name) {
            Some(variable) => Ok(variable.value.clone()),
            None => self.error(at, format_args!("undefined variable: {name}")),
        }
    }

    /// The value whose fields a chain names.
    fn chained(&mut self, dot: &Value, operand: &'a Operand, at: &At<'_>) -> Done<Value> {
        match &operand.term {
            Term::Pipe(pipe) => self.pipe(dot, pipe),
            Term::Function(function) => {
                let at = At { pos: operand.pos, context: operand };
                self.call(dot, function, None, [&at, &at], &[], None)
            }
            Term::Nil => self.error(at, format_args!("indirection through explicit nil in {}", at.context)),
            _ => self.error(at, format_args!("can't evaluate {}", at.context)),
        }
    }

    /// A number where nothing says which type it has.
    fn constant(&mut self, number: &Number, at: &At<'_>) -> Done<Value> {
        match number {
            Number { float: Some(value), .. } if number.is_written_as_float() => Ok(Value::Float(*value)),
            Number { int: Some(value), .. } => Ok(Value::Int(*value)),
            Number { uint: Some(_), text, .. } => self.error(at, format_args!("{text} overflows int")),
            _ => Ok(Value::Nil),
        }
    }

    // Fields.

    fn fields(
        &mut self,
        dot: &Value,
        value: Value,
        names: &[String],
        at: &At<'_>,
        operands: &'a [Operand],
        last: Option<Value>,
    ) -> Done<Value> {
        let Some((final_name, names)) = names.split_last() else { return Ok(value) };
        let mut value = value;
        for name in names {
            value = self.field(dot, value, name, at, &[], None)?;
        }
        self.field(dot, value, final_name, at, operands, last)
    }

    fn field(
        &mut self,
        dot: &Value,
        value: Value,
        name: &str,
        at: &At<'_>,
        operands: &'a [Operand],
        last: Option<Value>,
    ) -> Done<Value> {
        let has_arguments = !operands.is_empty() || last.is_some();
        let found = match &value {
            Value::Nil => return Ok(Value::Nil),
            Value::Root | Value::Dict(_) if has_arguments => {
                return self.error(at, format_args!("{name} is not a method but has arguments"));
            }
            Value::Root => match &self.root {
                Some(Value::Dict(dict)) => dict.map.borrow().get(name.as_bytes()).cloned(),
                _ => self.data.get(name.as_bytes()).map(|text| {
                    self.longest = self.longest.max(text.len());
                    match text {
                        Cow::Borrowed(text) => Value::text(text),
                        Cow::Owned(text) => Value::from(text),
                    }
                }),
            },
            Value::Dict(dict) => dict.map.borrow().get(name.as_bytes()).cloned(),
            other => {
                let Some(method) = functions::method(other, name) else {
                    let type_name = other.type_name();
                    return self.error(at, format_args!("can't evaluate field {name} in type {type_name}"));
                };
                return self.call(dot, method, Some(value), [at, at], operands, last);
            }
        };
        Ok(found.unwrap_or(Value::Nil))
    }

    // Calls.

    /// Calls a function, or a method of the receiver. Errors of the call as such are at the first place, those of the
    /// function at the second.
    fn call(
        &mut self,
        dot: &Value,
        function: &'static Function,
        receiver: Option<Value>,
        at: [&At<'_>; 2],
        operands: &'a [Operand],
        last: Option<Value>,
    ) -> Done<Value> {
        let name = function.name;
        let fixed = function.params.len();
        let count = operands.len() + usize::from(last.is_some());
        if function.variadic.is_some() {
            if count < fixed {
                let got = operands.len();
                return self
                    .error(at[0], format_args!("wrong number of args for {name}: want at least {fixed} got {got}"));
            }
        } else if count != fixed {
            return self.error(at[0], format_args!("wrong number of args for {name}: want {fixed} got {count}"));
        }
        if let Some(special) = function.special {
            return self.short_circuit(dot, special, operands, last);
        }
        let type_of = |index: usize| function.params.get(index).copied().or(function.variadic).unwrap_or(Type::Any);
        let mut values = Vec::with_capacity(count + 1);
        values.extend(receiver);
        for (index, operand) in operands.iter().enumerate() {
            values.push(self.argument(dot, type_of(index), operand)?);
        }
        if let Some(last) = last {
            values.push(self.validate(last, type_of(operands.len()), at[0])?);
        }
        let sizes = values.iter().fold(16usize, |sum, value| sum.saturating_add(value.size()));
        let result = self.charge(sizes).and_then(|()| (function.run)(self, &values));
        let result = result.and_then(|value| {
            let max = self.output_max();
            if matches!(&value, Value::Text(text) if text.len() > max) {
                return Err(format!("result is larger than {max} bytes"));
            }
            self.charge(value.size())?;
            Ok(value)
        });
        match result {
            Ok(value) => Ok(value),
            Err(message) => self.error(at[1], format_args!("error calling {name}: {message}")),
        }
    }

    /// `and` and `or`, which evaluate no more than they need.
    fn short_circuit(
        &mut self,
        dot: &Value,
        special: Special,
        operands: &'a [Operand],
        last: Option<Value>,
    ) -> Done<Value> {
        let mut value = Value::Nil;
        for operand in operands {
            value = self.argument(dot, Type::Reflect, operand)?;
            if value.is_true() == (special == Special::Or) {
                return Ok(value);
            }
        }
        Ok(last.map_or(value, |last| self.own(last)))
    }

    /// The value of an operand as an argument of a type.
    fn argument(&mut self, dot: &Value, wanted: Type, operand: &'a Operand) -> Done<Value> {
        self.step().map_err(Flow::Error)?;
        let at = At { pos: operand.pos, context: operand };
        let value = match &operand.term {
            Term::Dot => dot.clone(),
            Term::Nil => {
                if wanted.can_be_nil() {
                    return Ok(Value::Nil);
                }
                return self.error(&at, format_args!("cannot assign nil to {}", wanted.name()));
            }
            Term::Field(names) => self.fields(dot, dot.clone(), names, &at, &[], None)?,
            Term::Variable(name, names) => {
                let value = self.variable(name, &at)?;
                self.fields(dot, value, names, &at, &[], None)?
            }
            Term::Pipe(pipe) => self.pipe(dot, pipe)?,
            Term::Function(function) => self.call(dot, function, None, [&at, &at], &[], None)?,
            Term::Chain(inner, names) => {
                let value = self.chained(dot, inner, &at)?;
                self.fields(dot, value, names, &at, &[], None)?
            }
            literal => return self.literal(literal, wanted, operand, &at),
        };
        self.validate(value, wanted, &at)
    }

    fn literal(&mut self, literal: &Term, wanted: Type, operand: &Operand, at: &At<'_>) -> Done<Value> {
        let expected = |what: &str| format!("expected {what}; found {operand}");
        match (wanted, literal) {
            (Type::Any | Type::Reflect, Term::Bool(value)) | (Type::Bool, Term::Bool(value)) => Ok(Value::Bool(*value)),
            (Type::Any | Type::Reflect | Type::Text, Term::Text(text, _)) => Ok(Value::Text(text.clone())),
            (Type::Any | Type::Reflect, Term::Number(number)) => self.constant(number, at),
            (Type::Int, Term::Number(Number { int: Some(value), .. })) => Ok(Value::Int(*value)),
            (Type::Duration, Term::Number(Number { int: Some(value), .. })) => Ok(Value::Duration(*value)),
            (Type::Uint32, Term::Number(Number { uint: Some(value), .. })) => Ok(Value::Int(i64::from(*value as u32))),
            (Type::Float, Term::Number(Number { float: Some(value), .. })) => Ok(Value::Float(*value)),
            (Type::Bool, _) => self.error(at, expected("bool")),
            (Type::Text, _) => self.error(at, expected("string")),
            (Type::Int | Type::Duration, _) => self.error(at, expected("integer")),
            (Type::Uint32, _) => self.error(at, expected("unsigned integer")),
            (Type::Float, _) => self.error(at, expected("float")),
            _ => self.error(at, format_args!("can't handle {operand} for arg of type {}", wanted.name())),
        }
    }

    /// The value, if it can be passed as an argument of a type.
    fn validate(&mut self, value: Value, wanted: Type, at: &At<'_>) -> Done<Value> {
        let value = self.own(value);
        let fits = match (&value, wanted) {
            (Value::Nil, wanted) => {
                if wanted.can_be_nil() {
                    return Ok(value);
                }
                return self.error(at, format_args!("invalid value; expected {}", wanted.name()));
            }
            (_, Type::Any | Type::Reflect)
            | (Value::Text(_), Type::Text)
            | (Value::Int(_), Type::Int)
            | (Value::Float(_), Type::Float)
            | (Value::Bool(_), Type::Bool)
            | (Value::Duration(_), Type::Duration)
            | (Value::Version(_), Type::Version)
            | (Value::Time(_), Type::Time) => true,
            (Value::Dict(dict), Type::Dict) => !dict.texts,
            _ => false,
        };
        if fits {
            return Ok(value);
        }
        let (wanted, got) = (wanted.name(), value.type_name());
        self.error(at, format_args!("wrong type for value; expected {wanted}; got {got}"))
    }
}
