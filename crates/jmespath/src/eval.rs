//! Evaluation of the tree.

use std::sync::Arc;

use crate::functions;
use crate::parse::{Node, Operator, SliceParts};
use crate::{Error, Value};

/// How many nodes an evaluation may visit.
const STEPS_MAX: u64 = 5_000_000;

/// How long a string may be that an evaluation makes, in bytes.
pub(crate) const STRING_BYTES_MAX: usize = 16 << 20;

/// An evaluation under way.
pub(crate) struct Run<'a> {
    root: &'a Value,
    variables: Vec<(Arc<str>, Value)>,
    steps: u64,
}

pub(crate) fn search(node: &Node, document: &Value) -> Result<Value, Error> {
    Run { root: document, variables: Vec::new(), steps: 0 }.eval(node, document)
}

impl Run<'_> {
    pub(crate) fn eval(&mut self, node: &Node, value: &Value) -> Result<Value, Error> {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err(Error::new(format!("expression takes more than {STEPS_MAX} steps")));
        }
        match node {
            Node::Identity => Ok(value.clone()),
            Node::Root => Ok(self.root.clone()),
            Node::Field(name) => Ok(value.get(name).cloned().unwrap_or_default()),
            Node::Literal(value) => Ok(value.clone()),
            Node::Variable(name) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                found.map(|(_, value)| value.clone()).ok_or_else(|| Error::new(format!("variable not defined: {name}")))
            }
            Node::Index(index) => Ok(match value {
                Value::Array(list) => element(list, *index),
                _ => Value::Null,
            }),
            Node::Slice(parts) => slice_of(value, parts),
            Node::Chain(left, right) => match self.eval(left, value)? {
                Value::Null => Ok(Value::Null),
                left => self.eval(right, &left),
            },
            Node::Pipe(left, right) => {
                let left = self.eval(left, value)?;
                self.eval(right, &left)
            }
            Node::Or(left, right) => match self.eval(left, value)? {
                left if left.is_false() => self.eval(right, value),
                left => Ok(left),
            },
            Node::And(left, right) => match self.eval(left, value)? {
                left if left.is_false() => Ok(left),
                _ => self.eval(right, value),
            },
            Node::Not(of) => Ok(Value::Bool(self.eval(of, value)?.is_false())),
            Node::Arithmetic(operator, left, right) => {
                let (left, right) = (self.eval(left, value)?, self.eval(right, value)?);
                Ok(arithmetic(*operator, &left, &right))
            }
            Node::Sign { negative, of } => Ok(match self.eval(of, value)? {
                Value::Number(number) => Value::Number(if *negative { -number } else { number }),
                _ => Value::Null,
            }),
            Node::Compare(operator, left, right) => {
                let (left, right) = (self.eval(left, value)?, self.eval(right, value)?);
                Ok(compare(*operator, &left, &right))
            }
            // What goes wrong on the left of these is as if nothing were there.
            Node::Flatten(left) => Ok(match self.eval(left, value) {
                Ok(Value::Array(list)) => flatten(&list),
                _ => Value::Null,
            }),
            Node::ValueProjection(left, right) => match self.eval(left, value) {
                Ok(Value::Object(members)) => self.project(members.iter().map(|(_, value)| value), right),
                _ => Ok(Value::Null),
            },
            Node::Filter { left, right, condition } => {
                let Ok(Value::Array(list)) = self.eval(left, value) else { return Ok(Value::Null) };
                let mut kept = Vec::new();
                for element in list.iter() {
                    if !self.eval(condition, element)?.is_false() {
                        kept.push(element);
                    }
                }
                self.project(kept.into_iter(), right)
            }
            Node::Projection { left, right, of_string } => match self.eval(left, value)? {
                Value::Array(list) => self.project(list.iter(), right),
                text @ Value::String(_) if *of_string => Ok(text),
                _ => Ok(Value::Null),
            },
            Node::List(list) => {
                let values = list.iter().map(|node| self.eval(node, value)).collect::<Result<_, _>>()?;
                Ok(Value::array(values))
            }
            Node::Hash(members) => {
                let mut found = Vec::with_capacity(members.len());
                for (name, node) in members {
                    found.push((Arc::clone(name), self.eval(node, value)?));
                }
                Ok(Value::object(found))
            }
            Node::Call(name, arguments) => functions::call(self, name, arguments, value),
            Node::Let(bindings, body) => {
                let before = self.variables.len();
                let outcome = self.eval_let(bindings, body, value);
                self.variables.truncate(before);
                outcome
            }
            Node::Reference(_) | Node::Binding(..) => {
                Err(Error::new("an expression is no value outside the arguments of a function"))
            }
        }
    }

    fn eval_let(&mut self, bindings: &[(Arc<str>, Node)], body: &Node, value: &Value) -> Result<Value, Error> {
        // All values are found before the first name is known.
        let mut found = Vec::with_capacity(bindings.len());
        for (name, node) in bindings {
            found.push((Arc::clone(name), self.eval(node, value)?));
        }
        self.variables.extend(found);
        self.eval(body, value)
    }

    fn project<'v>(&mut self, elements: impl Iterator<Item = &'v Value>, right: &Node) -> Result<Value, Error> {
        let mut found = Vec::new();
        for element in elements {
            match self.eval(right, element)? {
                Value::Null => {}
                value => found.push(value),
            }
        }
        Ok(Value::array(found))
    }
}

fn element(list: &[Value], index: i64) -> Value {
    let index = if index < 0 { index + list.len() as i64 } else { index };
    usize::try_from(index).ok().and_then(|index| list.get(index)).cloned().unwrap_or_default()
}

fn flatten(list: &[Value]) -> Value {
    let mut flat = Vec::new();
    for element in list {
        match element {
            Value::Array(inner) => flat.extend(inner.iter().cloned()),
            other => flat.push(other.clone()),
        }
    }
    Value::array(flat)
}

fn slice_of(value: &Value, parts: &SliceParts) -> Result<Value, Error> {
    match value {
        Value::Array(list) => match places(list.len(), parts) {
            Some(places) => Ok(Value::array(places.map(|at| list[at].clone()).collect())),
            None => Err(Error::new("invalid slice, step cannot be 0")),
        },
        Value::String(text) => {
            let characters: Vec<char> = text.chars().collect();
            // Here a step of zero is nothing rather than an error.
            let slice =
                places(characters.len(), parts).map(|places| places.map(|at| characters[at]).collect::<String>());
            Ok(slice.map_or(Value::Null, Value::string))
        }
        _ => Ok(Value::Null),
    }
}

/// The places of a slice. Nothing for a step of zero.
fn places(len: usize, parts: &SliceParts) -> Option<impl Iterator<Item = usize> + use<>> {
    let len = len as i64;
    let step = parts[2].unwrap_or(1);
    if step == 0 {
        return None;
    }
    let capped = |at: i64| {
        let at = if at < 0 { at.saturating_add(len) } else { at };
        if step < 0 { at.clamp(-1, len - 1) } else { at.clamp(0, len) }
    };
    let start = parts[0].map_or(if step < 0 { len - 1 } else { 0 }, capped);
    let stop = parts[1].map_or(if step < 0 { -1 } else { len }, capped);
    let places = std::iter::successors(Some(start), move |at| at.checked_add(step))
        .take_while(move |at| if step < 0 { *at > stop } else { *at < stop });
    Some(places.map(|at| at as usize))
}

fn arithmetic(operator: Operator, left: &Value, right: &Value) -> Value {
    let (Value::Number(left), Value::Number(right)) = (left, right) else { return Value::Null };
    Value::Number(match operator {
        Operator::Plus => left + right,
        Operator::Minus => left - right,
        Operator::Multiply => left * right,
        Operator::Divide => left / right,
        Operator::Modulo => left % right,
        Operator::Div => (left / right).floor(),
        _ => return Value::Null,
    })
}

fn compare(operator: Operator, left: &Value, right: &Value) -> Value {
    match operator {
        Operator::Equal => return Value::Bool(left == right),
        Operator::NotEqual => return Value::Bool(left != right),
        _ => {}
    }
    let (Value::Number(left), Value::Number(right)) = (left, right) else { return Value::Null };
    Value::Bool(match operator {
        Operator::Less => left < right,
        Operator::LessEqual => left <= right,
        Operator::Greater => left > right,
        Operator::GreaterEqual => left >= right,
        _ => return Value::Null,
    })
}
