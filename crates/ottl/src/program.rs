//! Compiled statements.

use std::borrow::Cow;

use corten_golang::time::Time;
use corten_otlp::{Arena, Map, Pair, Value};

use crate::error::EvalError;
use crate::functions::{Function, Prepared};
use crate::item::Item;
use crate::path::{self, Leaf};
use crate::value::{Comparison, Const, Val};

/// A compiled expression.
#[derive(Debug)]
pub(crate) enum Ex {
    Const(Const),
    Path(Path),
    Call(Box<Call>, Vec<Key>),
    Math(char, Box<Ex>, Box<Ex>),
    Negative(Box<Ex>),
    List(Vec<Ex>),
    Map(Vec<(Box<[u8]>, Ex)>),
}

/// A compiled path.
#[derive(Debug)]
pub(crate) struct Path {
    pub(crate) leaf: Leaf,
    pub(crate) keys: Vec<Key>,
}

#[derive(Debug)]
pub(crate) enum Key {
    Text(Box<[u8]>),
    Int(i64),
    Ex(Ex),
}

/// A function with what it is called with.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) function: &'static Function,
    pub(crate) args: Vec<Option<Arg>>,
    pub(crate) prepared: Prepared,
}

#[derive(Debug)]
pub(crate) enum Arg {
    One(Ex),
    Many(Vec<Ex>),
    Function(&'static Function),
}

/// A compiled condition.
#[derive(Debug)]
pub(crate) enum Test {
    Const(bool),
    Compare(Comparison, Ex, Ex),
    Converter(Ex),
    Not(Box<Test>),
    And(Vec<Test>),
    Or(Vec<Test>),
}

/// Statements, in their order.
#[derive(Debug)]
pub struct Program {
    pub(crate) context: crate::Context,
    pub(crate) statements: Vec<Statement>,
}

impl Program {
    /// What the statements are executed for.
    pub fn context(&self) -> crate::Context {
        self.context
    }

    /// The statements.
    pub fn statements(&self) -> &[Statement] {
        &self.statements
    }
}

/// A statement: a function that changes something, and when it does.
#[derive(Debug)]
pub struct Statement {
    pub(crate) source: String,
    pub(crate) editor: Call,
    pub(crate) condition: Test,
}

impl Statement {
    /// The statement as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Executes the statement, and says whether its condition was met.
    ///
    /// # Errors
    ///
    /// Why its condition could not be evaluated, or its function not be executed.
    pub fn execute(&self, item: &mut Item<'_>) -> Result<bool, EvalError> {
        if !self.condition.holds(item)? {
            return Ok(false);
        }
        self.editor.run(item)?;
        Ok(true)
    }
}

/// Conditions of which one is enough.
#[derive(Debug)]
pub struct Conditions {
    pub(crate) context: crate::Context,
    pub(crate) conditions: Vec<Condition>,
}

impl Conditions {
    /// What the conditions are evaluated for.
    pub fn context(&self) -> crate::Context {
        self.context
    }

    /// The conditions.
    pub fn conditions(&self) -> &[Condition] {
        &self.conditions
    }
}

/// A condition.
#[derive(Debug)]
pub struct Condition {
    pub(crate) source: String,
    pub(crate) test: Test,
}

impl Condition {
    /// The condition as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it is met.
    ///
    /// # Errors
    ///
    /// Why that cannot be said.
    pub fn holds(&self, item: &mut Item<'_>) -> Result<bool, EvalError> {
        self.test.holds(item)
    }
}

/// An expression by itself.
#[derive(Debug)]
pub struct Expression {
    pub(crate) context: crate::Context,
    pub(crate) source: String,
    pub(crate) ex: Ex,
}

impl Expression {
    /// What the expression is evaluated for.
    pub fn context(&self) -> crate::Context {
        self.context
    }

    /// The expression as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Its value.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub fn value<'p>(&'p self, item: &mut Item<'_>) -> Result<Val<'p>, EvalError> {
        self.ex.val(item)
    }
}

impl Test {
    pub(crate) fn holds(&self, item: &mut Item<'_>) -> Result<bool, EvalError> {
        match self {
            Test::Const(value) => Ok(*value),
            Test::Compare(comparison, left, right) => {
                let left = left.val(item)?;
                let right = right.val(item)?;
                Ok(left.compare(*comparison, &right, item.arena))
            }
            Test::Converter(ex) => match ex.val(item)? {
                Val::Bool(value) => Ok(value),
                other => Err(format!("a condition must be a bool, and the function gave {}", other.type_name()).into()),
            },
            Test::Not(inner) => inner.holds(item).map(|holds| !holds),
            Test::And(all) => {
                for one in all {
                    if !one.holds(item)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Test::Or(all) => {
                for one in all {
                    if one.holds(item)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
        }
    }
}

impl Ex {
    pub(crate) fn val<'p>(&'p self, item: &mut Item<'_>) -> Result<Val<'p>, EvalError> {
        match self {
            Ex::Const(value) => Ok(value.val(item.arena)),
            Ex::Path(path) => path.val(item),
            Ex::Call(call, keys) => {
                let value = call.run(item)?;
                if keys.is_empty() { Ok(value) } else { indexed(value, keys, item) }
            }
            Ex::Math(sign, left, right) => {
                let left = left.val(item)?;
                let right = right.val(item)?;
                calculate(*sign, &left, &right)
            }
            Ex::Negative(value) => match value.val(item)? {
                Val::Int(value) => Ok(Val::Int(value.wrapping_neg())),
                Val::Double(value) => Ok(Val::Double(-value)),
                other => Err(format!("unsupported unary minus operation on type {}", other.type_name()).into()),
            },
            Ex::List(values) => {
                let mut evaluated = Vec::with_capacity(values.len());
                for value in values {
                    let value = value.val(item)?;
                    evaluated.push(value.into_value(item.arena)?);
                }
                Ok(Val::List(item.arena.list(&evaluated)))
            }
            Ex::Map(pairs) => {
                let mut evaluated = Vec::with_capacity(pairs.len());
                for (key, value) in pairs {
                    let value = value.val(item)?;
                    evaluated.push(Pair { key: item.arena.own(key), value: value.into_value(item.arena)? });
                }
                Ok(Val::Map(item.arena.map(&evaluated)))
            }
        }
    }

    /// The value, if it is written in the statement.
    pub(crate) fn constant(&self) -> Option<&Const> {
        match self {
            Ex::Const(value) => Some(value),
            _ => None,
        }
    }
}

impl Call {
    pub(crate) fn run<'p>(&'p self, item: &mut Item<'_>) -> Result<Val<'p>, EvalError> {
        (self.function.run)(self, item)
    }
}

fn calculate<'p>(sign: char, left: &Val<'_>, right: &Val<'_>) -> Result<Val<'p>, EvalError> {
    let wrong = |value: &Val<'_>, expected: &str| EvalError::new(format!("{} must be {expected}", value.type_name()));
    match (left, right) {
        (Val::Int(a), Val::Int(b)) => Ok(Val::Int(match sign {
            '+' => a.wrapping_add(*b),
            '-' => a.wrapping_sub(*b),
            '*' => a.wrapping_mul(*b),
            _ if *b == 0 => return Err("attempted to divide by 0".into()),
            _ => a.wrapping_div(*b),
        })),
        (Val::Int(_) | Val::Double(_), Val::Int(_) | Val::Double(_)) => {
            let number = |value: &Val<'_>| match value {
                Val::Int(value) => *value as f64,
                Val::Double(value) => *value,
                _ => 0.0,
            };
            let (a, b) = (number(left), number(right));
            Ok(Val::Double(match sign {
                '+' => a + b,
                '-' => a - b,
                '*' => a * b,
                _ if b == 0.0 => return Err("attempted to divide by 0".into()),
                _ => a / b,
            }))
        }
        (Val::Int(_) | Val::Double(_), other) => Err(wrong(other, "int64 or float64")),
        (Val::Time(_) | Val::Duration(_), _) if sign == '*' || sign == '/' => {
            Err("only addition and subtraction supported for time.Time and time.Duration".into())
        }
        (Val::Time(time), Val::Duration(duration)) => {
            Ok(Val::Time(moved(time, if sign == '-' { -i128::from(*duration) } else { i128::from(*duration) })))
        }
        (Val::Time(a), Val::Time(b)) if sign == '-' => {
            let ns = |time: &Time| i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds);
            let difference = ns(a) - ns(b);
            let end = if difference < 0 { i64::MIN } else { i64::MAX };
            Ok(Val::Duration(i64::try_from(difference).unwrap_or(end)))
        }
        (Val::Duration(a), Val::Duration(b)) => {
            Ok(Val::Duration(if sign == '-' { a.wrapping_sub(*b) } else { a.wrapping_add(*b) }))
        }
        (Val::Duration(duration), Val::Time(time)) if sign == '+' => Ok(Val::Time(moved(time, i128::from(*duration)))),
        (Val::Time(_), other) => Err(wrong(other, "time.Duration, or time.Time to be subtracted")),
        (Val::Duration(_), other) => Err(wrong(other, "time.Duration, or time.Time to be added to")),
        (other, _) => Err(wrong(other, "int64, float64, time.Time or time.Duration")),
    }
}

/// The time so many nanoseconds later.
fn moved(time: &Time, by: i128) -> Time {
    let ns = i128::from(time.nanoseconds) + by;
    let seconds = time.seconds.saturating_add(ns.div_euclid(1_000_000_000) as i64);
    Time { seconds, nanoseconds: ns.rem_euclid(1_000_000_000) as u32, ..*time }
}

/// A key when it is known.
#[derive(Clone, Debug)]
pub(crate) enum KeyVal<'p> {
    Text(Cow<'p, [u8]>),
    Int(i64),
}

impl Key {
    pub(crate) fn val<'p>(&'p self, item: &mut Item<'_>) -> Result<KeyVal<'p>, EvalError> {
        let ex = match self {
            Key::Text(text) => return Ok(KeyVal::Text(Cow::Borrowed(text))),
            Key::Int(index) => return Ok(KeyVal::Int(*index)),
            Key::Ex(ex) => ex,
        };
        match ex.val(item)? {
            Val::Int(index) => Ok(KeyVal::Int(index)),
            Val::Str(text) => Ok(KeyVal::Text(text)),
            Val::Text(text) => Ok(KeyVal::Text(Cow::Owned(item.arena.bytes(text).to_vec()))),
            other => Err(format!("a key must be a string or int64, not {}", other.type_name()).into()),
        }
    }
}

impl KeyVal<'_> {
    fn text(&self) -> Result<&[u8], EvalError> {
        match self {
            KeyVal::Text(text) => Ok(text),
            KeyVal::Int(_) => Err("unable to resolve a string index in map: invalid key type".into()),
        }
    }

    /// The place in a list of some length.
    fn index(&self, len: usize) -> Result<usize, EvalError> {
        match self {
            KeyVal::Int(index) => {
                let at = usize::try_from(*index).ok().filter(|at| *at < len);
                at.ok_or_else(|| format!("index {index} out of bounds").into())
            }
            KeyVal::Text(_) => Err("unable to resolve an integer index in slice: invalid key type".into()),
        }
    }
}

/// What is within a value that a function gave. What is not there is an error.
fn indexed<'p>(value: Val<'p>, keys: &'p [Key], item: &mut Item<'_>) -> Result<Val<'p>, EvalError> {
    let mut value = value;
    for key in keys {
        let key = key.val(item)?;
        value = match (&key, &value) {
            (KeyVal::Text(key), Val::Map(map)) => {
                let found = item.arena.get(*map, key);
                Val::from(found.ok_or("key not found in map")?)
            }
            (KeyVal::Int(_), Val::List(list)) => {
                let values = item.arena.values(*list);
                Val::from(values[key.index(values.len())?])
            }
            (KeyVal::Int(_), Val::Bytes(_) | Val::ByteStr(_)) => {
                let bytes = value.byte_str(item.arena).unwrap_or_default();
                Val::Int(i64::from(bytes[key.index(bytes.len())?]))
            }
            (KeyVal::Text(_), other) => {
                return Err(format!("type {} does not support string indexing", other.type_name()).into());
            }
            (KeyVal::Int(_), other) => {
                return Err(format!("type {} does not support int indexing", other.type_name()).into());
            }
        };
    }
    Ok(value)
}

/// What a type of value is called where it is part of telemetry.
fn kind(value: Value) -> &'static str {
    match value {
        Value::Empty => "Empty",
        Value::Str(_) => "Str",
        Value::Bool(_) => "Bool",
        Value::Int(_) => "Int",
        Value::Double(_) => "Double",
        Value::Bytes(_) => "Bytes",
        Value::List(_) => "Slice",
        Value::Map(_) => "Map",
    }
}

/// The largest list that writing to one of its places makes.
const NEW_LIST_MAX: usize = 1 << 16;

impl Path {
    pub(crate) fn val<'p>(&'p self, item: &mut Item<'_>) -> Result<Val<'p>, EvalError> {
        let Some((first, rest)) = self.keys.split_first() else { return path::get(self.leaf, item) };
        if self.leaf == Leaf::SpanState {
            let KeyVal::Text(key) = first.val(item)? else {
                return Err("trace_state indexing type must be a string".into());
            };
            return path::trace_state_entry(item, &key);
        }
        let found = if self.leaf == Leaf::ClientMetadata {
            let name = first.val(item)?;
            path::header(item, name.text()?)
        } else {
            let root = match path::get(self.leaf, item)? {
                Val::Map(map) => Value::Map(map),
                Val::List(list) if self.leaf == Leaf::LogBody => Value::List(list),
                other if self.leaf == Leaf::LogBody => return Err(body_has_no_keys(other.into_value(item.arena)?)),
                // Attributes of a point that has none.
                _ => return Ok(Val::Nil),
            };
            step(root, first, item)?
        };
        let Some(mut value) = found else { return Ok(Val::Nil) };
        for key in rest {
            match step(value, key, item)? {
                Some(next) => value = next,
                None => return Ok(Val::Nil),
            }
        }
        Ok(Val::from(value))
    }

    /// Writes a value to where the path leads. Maps are made on the way.
    pub(crate) fn set(&self, item: &mut Item<'_>, value: Val<'_>) -> Result<(), EvalError> {
        if self.keys.is_empty() {
            return path::set(self.leaf, item, value);
        }
        if let Some(name) = path::read_only(self.leaf) {
            return Err(format!("{name} is read-only and cannot be modified").into());
        }
        if self.leaf == Leaf::SpanState {
            let KeyVal::Text(key) = self.keys[0].val(item)? else {
                return Err("trace_state indexing type must be a string".into());
            };
            return path::set_trace_state_entry(item, &key, &value);
        }
        let new = value.into_value(item.arena)?;
        if let Some(mut map) = path::root_map(self.leaf, item) {
            if let [key] = &self.keys[..] {
                let key = key.val(item)?;
                item.arena.put(&mut map, key.text()?, new);
            } else {
                let keys: Vec<KeyVal<'_>> = self.keys.iter().map(|key| key.val(item)).collect::<Result<_, _>>()?;
                put_in_map(item.arena, &mut map, &keys, new)?;
            }
            return path::set_root_map(self.leaf, item, map);
        }
        let keys: Vec<KeyVal<'_>> = self.keys.iter().map(|key| key.val(item)).collect::<Result<_, _>>()?;
        let crate::item::Record::Log(log) = &mut item.record else {
            return Err("the item has no such part".into());
        };
        if !matches!(log.body, Value::Map(_) | Value::List(_)) {
            return Err(body_has_no_keys(log.body));
        }
        log.body = put_in(item.arena, log.body, &keys, new)?;
        Ok(())
    }
}

fn body_has_no_keys(body: Value) -> EvalError {
    format!("log bodies of type {} cannot be indexed", kind(body)).into()
}

/// What is within a value; nothing where a map does not have the key.
fn step(value: Value, key: &Key, item: &mut Item<'_>) -> Result<Option<Value>, EvalError> {
    match value {
        Value::Map(map) => match key {
            Key::Text(key) => Ok(item.arena.get(map, key)),
            key => {
                let key = key.val(item)?;
                Ok(item.arena.get(map, key.text()?))
            }
        },
        Value::List(list) => {
            let key = key.val(item)?;
            let values = item.arena.values(list);
            Ok(Some(values[key.index(values.len())?]))
        }
        other => Err(format!("type {} does not support string indexing", kind(other)).into()),
    }
}

fn put_in_map(arena: &mut Arena, map: &mut Map, keys: &[KeyVal<'_>], new: Value) -> Result<(), EvalError> {
    let (Some(first), rest) = (keys.first(), keys.get(1..).unwrap_or_default()) else { return Ok(()) };
    let key = first.text()?;
    let current = arena.get(*map, key).unwrap_or_default();
    let value = put_in(arena, current, rest, new)?;
    arena.put(map, key, value);
    Ok(())
}

/// A value with another one written into it.
fn put_in(arena: &mut Arena, current: Value, keys: &[KeyVal<'_>], new: Value) -> Result<Value, EvalError> {
    let Some((first, rest)) = keys.split_first() else { return Ok(new) };
    match (current, first) {
        (Value::Map(mut map), _) => {
            put_in_map(arena, &mut map, keys, new)?;
            Ok(Value::Map(map))
        }
        (Value::List(list), _) => {
            let at = first.index(list.len())?;
            let current = arena.values(list)[at];
            let value = put_in(arena, current, rest, new)?;
            arena.values_mut(list)[at] = value;
            Ok(Value::List(list))
        }
        (Value::Empty, KeyVal::Text(_)) => {
            let mut map = Map::default();
            put_in_map(arena, &mut map, keys, new)?;
            Ok(Value::Map(map))
        }
        (Value::Empty, KeyVal::Int(index)) => {
            let at = usize::try_from(*index).ok().filter(|at| *at < NEW_LIST_MAX);
            let at = at.ok_or_else(|| EvalError::new(format!("index {index} out of bounds for a new list")))?;
            let value = put_in(arena, Value::Empty, rest, new)?;
            let mut values = vec![Value::Empty; at + 1];
            values[at] = value;
            Ok(Value::List(arena.list(&values)))
        }
        (other, _) => Err(format!("type {} does not support string indexing", kind(other)).into()),
    }
}
