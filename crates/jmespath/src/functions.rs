//! The functions.

use std::collections::HashMap;
use std::sync::Arc;

use crate::eval::{Run, STRING_BYTES_MAX};
use crate::parse::Node;
use crate::{Error, Value};

/// What an argument may be.
#[derive(Clone, Copy)]
enum Kind {
    Any,
    Number,
    String,
    Array,
    Object,
    ArrayOrString,
    /// What has a length.
    Sized,
    Numbers,
    Strings,
    NumbersOrStrings,
    /// An expression, `&a`.
    Reference,
}

impl Kind {
    fn takes(self, argument: &Argument<'_>) -> bool {
        let Argument::Value(value) = argument else { return matches!(self, Kind::Reference | Kind::Any) };
        let numbers = |list: &[Value]| list.iter().all(|value| matches!(value, Value::Number(_)));
        let strings = |list: &[Value]| list.iter().all(|value| matches!(value, Value::String(_)));
        match (self, value) {
            (Kind::Any, _)
            | (Kind::Number, Value::Number(_))
            | (Kind::String | Kind::ArrayOrString | Kind::Sized, Value::String(_))
            | (Kind::Array | Kind::ArrayOrString | Kind::Sized, Value::Array(_))
            | (Kind::Object | Kind::Sized, Value::Object(_)) => true,
            (Kind::Numbers, Value::Array(list)) => numbers(list),
            (Kind::Strings, Value::Array(list)) => strings(list),
            (Kind::NumbersOrStrings, Value::Array(list)) => numbers(list) || strings(list),
            _ => false,
        }
    }
}

enum Argument<'a> {
    Value(Value),
    Reference(&'a Node),
}

/// What functions take: what they need, what they may be given besides, and what may follow in any number.
struct Signature {
    needed: &'static [Kind],
    optional: &'static [Kind],
    more: Option<Kind>,
}

const fn needs(needed: &'static [Kind]) -> Signature {
    Signature { needed, optional: &[], more: None }
}

fn signature(name: &str) -> Option<Signature> {
    use Kind::{
        Any, Array, ArrayOrString, Number, Numbers, NumbersOrStrings, Object, Reference, Sized, String, Strings,
    };
    Some(match name {
        "abs" | "ceil" | "floor" => needs(&[Number]),
        "avg" | "sum" => needs(&[Numbers]),
        "contains" => needs(&[ArrayOrString, Any]),
        "ends_with" | "starts_with" => needs(&[String, String]),
        "find_first" | "find_last" => Signature { needed: &[String, String], optional: &[Number, Number], more: None },
        "from_items" => needs(&[Array]),
        "group_by" | "max_by" | "min_by" | "sort_by" => needs(&[Array, Reference]),
        "items" | "keys" | "values" => needs(&[Object]),
        "join" => needs(&[String, Strings]),
        "length" => needs(&[Sized]),
        "lower" | "upper" => needs(&[String]),
        "map" => needs(&[Reference, Array]),
        "max" | "min" | "sort" => needs(&[NumbersOrStrings]),
        "merge" => Signature { needed: &[Object], optional: &[], more: Some(Object) },
        "not_null" => Signature { needed: &[Any], optional: &[], more: Some(Any) },
        "pad_left" | "pad_right" => Signature { needed: &[String, Number], optional: &[String], more: None },
        "replace" => Signature { needed: &[String, String, String], optional: &[Number], more: None },
        "reverse" => needs(&[ArrayOrString]),
        "split" => Signature { needed: &[String, String], optional: &[Number], more: None },
        "to_array" | "to_number" | "to_string" | "type" => needs(&[Any]),
        "trim" | "trim_left" | "trim_right" => Signature { needed: &[String], optional: &[String], more: None },
        "zip" => Signature { needed: &[Array, Array], optional: &[], more: Some(Array) },
        _ => return None,
    })
}

pub(crate) fn call(run: &mut Run<'_>, name: &str, nodes: &[Node], value: &Value) -> Result<Value, Error> {
    let mut arguments = Vec::with_capacity(nodes.len());
    for node in nodes {
        arguments.push(match node {
            Node::Reference(node) => Argument::Reference(node),
            node => Argument::Value(run.eval(node, value)?),
        });
    }
    let signature = signature(name).ok_or_else(|| Error::new(format!("unknown function: {name}")))?;
    let (least, most) = (signature.needed.len(), signature.needed.len() + signature.optional.len());
    if arguments.len() < least || (arguments.len() > most && signature.more.is_none()) {
        return Err(Error::new(format!(
            "invalid arity, the function '{name}' was given {} arguments",
            arguments.len()
        )));
    }
    let kinds = signature.needed.iter().chain(signature.optional).copied().chain(std::iter::repeat(Kind::Any));
    for (at, (argument, kind)) in arguments.iter().zip(kinds).enumerate() {
        let kind = if at < most { kind } else { signature.more.unwrap_or(Kind::Any) };
        if !kind.takes(argument) {
            return Err(Error::new(format!("invalid type of argument {} of the function '{name}'", at + 1)));
        }
    }
    let mut call = Call { run, name, arguments: arguments.into_iter() };
    call.answer()
}

/// A call whose arguments have the right kinds.
struct Call<'r, 'd, 'n> {
    run: &'r mut Run<'d>,
    name: &'n str,
    arguments: std::vec::IntoIter<Argument<'n>>,
}

impl Call<'_, '_, '_> {
    fn value(&mut self) -> Value {
        match self.arguments.next() {
            Some(Argument::Value(value)) => value,
            _ => Value::Null,
        }
    }

    fn number(&mut self) -> f64 {
        match self.value() {
            Value::Number(number) => number,
            _ => 0.0,
        }
    }

    fn string(&mut self) -> Arc<str> {
        match self.value() {
            Value::String(text) => text,
            _ => "".into(),
        }
    }

    fn array(&mut self) -> Arc<Vec<Value>> {
        match self.value() {
            Value::Array(list) => list,
            _ => Arc::default(),
        }
    }

    fn object(&mut self) -> Arc<Vec<(Arc<str>, Value)>> {
        match self.value() {
            Value::Object(members) => members,
            _ => Arc::default(),
        }
    }

    /// A whole number; nothing if there is no such argument.
    fn integer(&mut self, what: &str) -> Result<Option<i64>, Error> {
        match self.arguments.next() {
            None => Ok(None),
            Some(Argument::Value(Value::Number(number))) if number.floor() == number => Ok(Some(number as i64)),
            Some(_) => Err(Error::new(format!(
                "invalid value, the function '{}' expects its '{what}' argument to be an integer.",
                self.name
            ))),
        }
    }

    /// A whole number that is not negative; nothing if there is no such argument.
    fn count(&mut self, what: &str) -> Result<Option<usize>, Error> {
        let found = match self.arguments.next() {
            None => return Ok(None),
            Some(Argument::Value(Value::Number(number))) if number.floor() == number && number >= 0.0 => number,
            Some(_) => {
                return Err(Error::new(format!(
                    "invalid value, the function '{}' expects its '{what}' argument to be a an integer value greater \
                     than or equal to zero.",
                    self.name
                )));
            }
        };
        Ok(Some(found as usize))
    }

    fn too_long(&self) -> Error {
        Error::new(format!("the function '{}' makes a string of more than {STRING_BYTES_MAX} bytes", self.name))
    }

    /// The array of the first argument with what the expression of the second makes of each element.
    fn keyed(&mut self) -> Result<Vec<(Value, Value)>, Error> {
        let list = self.array();
        let Some(Argument::Reference(node)) = self.arguments.next() else { return Ok(Vec::new()) };
        let mut keyed = Vec::with_capacity(list.len());
        for element in list.iter() {
            keyed.push((self.run.eval(node, element)?, element.clone()));
        }
        Ok(keyed)
    }

    fn answer(&mut self) -> Result<Value, Error> {
        Ok(match self.name {
            "abs" => Value::Number(self.number().abs()),
            "ceil" => Value::Number(self.number().ceil()),
            "floor" => Value::Number(self.number().floor()),
            "avg" => {
                let numbers = numbers(&self.array());
                let sum = numbers.iter().fold(0.0, |sum, number| sum + number);
                if numbers.is_empty() { Value::Null } else { Value::Number(sum / numbers.len() as f64) }
            }
            "sum" => Value::Number(numbers(&self.array()).iter().fold(0.0, |sum, number| sum + number)),
            "contains" => match (self.value(), self.value()) {
                (Value::String(text), Value::String(part)) => Value::Bool(text.contains(&*part)),
                (Value::Array(list), part) => {
                    // Lists and objects are not compared.
                    let nested = matches!(part, Value::Array(_) | Value::Object(_));
                    Value::Bool(!nested && list.contains(&part))
                }
                _ => Value::Bool(false),
            },
            "ends_with" => Value::Bool(self.string().ends_with(&*self.string())),
            "starts_with" => Value::Bool(self.string().starts_with(&*self.string())),
            "find_first" | "find_last" => self.find()?,
            "from_items" => self.object_of_items()?,
            "group_by" => self.group_by()?,
            "items" => {
                let pair = |(name, value): &(Arc<str>, Value)| {
                    Value::array(vec![Value::String(Arc::clone(name)), value.clone()])
                };
                Value::array(self.object().iter().map(pair).collect())
            }
            "keys" => Value::array(self.object().iter().map(|(name, _)| Value::String(Arc::clone(name))).collect()),
            "values" => Value::array(self.object().iter().map(|(_, value)| value.clone()).collect()),
            "join" => {
                let (separator, list) = (self.string(), self.array());
                let texts: Vec<&str> = list.iter().filter_map(text).collect();
                let len: usize = texts.iter().map(|text| text.len() + separator.len()).sum();
                if len > STRING_BYTES_MAX {
                    return Err(self.too_long());
                }
                Value::string(texts.join(&separator))
            }
            "length" => Value::Number(match self.value() {
                Value::String(text) => text.chars().count(),
                Value::Array(list) => list.len(),
                Value::Object(members) => members.len(),
                _ => 0,
            } as f64),
            "lower" => Value::string(self.string().chars().map(|c| single(c, c.to_lowercase())).collect::<String>()),
            "upper" => Value::string(self.string().chars().map(|c| single(c, c.to_uppercase())).collect::<String>()),
            "map" => {
                let Some(Argument::Reference(node)) = self.arguments.next() else { return Ok(Value::Null) };
                let mut mapped = Vec::new();
                for element in self.array().iter() {
                    mapped.push(self.run.eval(node, element)?);
                }
                Value::array(mapped)
            }
            "max" => extreme(&self.array(), true),
            "min" => extreme(&self.array(), false),
            "max_by" => self.extreme_by(true)?,
            "min_by" => self.extreme_by(false)?,
            "merge" => {
                let mut members = Vec::new();
                for argument in self.arguments.by_ref() {
                    if let Argument::Value(Value::Object(more)) = argument {
                        members.extend(more.iter().cloned());
                    }
                }
                Value::object(members)
            }
            "not_null" => {
                let found = self.arguments.find_map(|argument| match argument {
                    Argument::Value(Value::Null) | Argument::Reference(_) => None,
                    Argument::Value(value) => Some(value),
                });
                found.unwrap_or_default()
            }
            "pad_left" | "pad_right" => self.pad()?,
            "replace" => self.replace()?,
            "reverse" => match self.value() {
                Value::String(text) => Value::string(text.chars().rev().collect::<String>()),
                Value::Array(list) => Value::array(list.iter().rev().cloned().collect()),
                _ => Value::Null,
            },
            "sort" => {
                let mut list = (*self.array()).clone();
                list.sort_by(order);
                Value::array(list)
            }
            "sort_by" => {
                let mut keyed = self.keyed()?;
                if keyed.len() > 1 {
                    check_keys(&keyed, "error in sort_by comparison")?;
                    keyed.sort_by(|a, b| order(&a.0, &b.0));
                }
                Value::array(keyed.into_iter().map(|(_, element)| element).collect())
            }
            "split" => self.split()?,
            "to_array" => match self.value() {
                list @ Value::Array(_) => list,
                other => Value::array(vec![other]),
            },
            "to_number" => match self.value() {
                number @ Value::Number(_) => number,
                Value::String(text) => go_float(&text).map_or(Value::Null, Value::Number),
                _ => Value::Null,
            },
            "to_string" => match self.value() {
                text @ Value::String(_) => text,
                Value::Number(number) if !number.is_finite() => return Err(Error::new("json: unsupported value")),
                other => Value::string(other.to_sorted_json()),
            },
            "trim" | "trim_left" | "trim_right" => self.trim(),
            "type" => Value::string(match self.value() {
                Value::Null => "null",
                Value::Bool(_) => "boolean",
                Value::Number(_) => "number",
                Value::String(_) => "string",
                Value::Array(_) => "array",
                Value::Object(_) => "object",
            }),
            "zip" => {
                let mut lists = Vec::new();
                for argument in self.arguments.by_ref() {
                    if let Argument::Value(Value::Array(list)) = argument {
                        lists.push(list);
                    }
                }
                let len = lists.iter().map(|list| list.len()).min().unwrap_or(0);
                let row = |at: usize| Value::array(lists.iter().map(|list| list[at].clone()).collect());
                Value::array((0..len).map(row).collect())
            }
            _ => return Err(Error::new(format!("unknown function: {}", self.name))),
        })
    }

    fn find(&mut self) -> Result<Value, Error> {
        let (subject, part) = (self.string(), self.string());
        if subject.is_empty() || part.is_empty() {
            return Ok(Value::Null);
        }
        let start = self.integer("start")?.unwrap_or(0).max(0);
        let end = self.integer("end")?.map_or(subject.len() as i64, |end| end.min(subject.len() as i64));
        // Places are bytes there, and may lie within a character.
        let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
        let Some((within, start)) = range.and_then(|(start, end)| Some((subject.as_bytes().get(start..end)?, start)))
        else {
            return Err(Error::new(format!("the function '{}' was given a range outside of its string", self.name)));
        };
        let mut windows = within.windows(part.len());
        let place = if self.name == "find_first" {
            windows.position(|window| window == part.as_bytes())
        } else {
            windows.rposition(|window| window == part.as_bytes())
        };
        Ok(place.map_or(Value::Null, |place| Value::Number((start + place) as f64)))
    }

    fn object_of_items(&mut self) -> Result<Value, Error> {
        let mut members = Vec::new();
        for pair in self.array().iter() {
            let Value::Array(pair) = pair else {
                return Err(Error::new("invalid type, first argument must be an array of arrays"));
            };
            match &***pair {
                [Value::String(name), value] => members.push((Arc::clone(name), value.clone())),
                _ => {
                    let text = "invalid value, each array must contain two elements, a pair of string and value";
                    return Err(Error::new(text));
                }
            }
        }
        Ok(Value::object(members))
    }

    fn group_by(&mut self) -> Result<Value, Error> {
        let keyed = self.keyed()?;
        if keyed.is_empty() {
            return Ok(Value::Null);
        }
        let mut groups: Vec<(Arc<str>, Vec<Value>)> = Vec::new();
        let mut places: HashMap<Arc<str>, usize> = HashMap::new();
        for (key, element) in keyed {
            let Value::String(key) = key else {
                return Err(Error::new("invalid type, the expression must evaluate to a string"));
            };
            let at = *places.entry(Arc::clone(&key)).or_insert_with(|| {
                groups.push((key, Vec::new()));
                groups.len() - 1
            });
            groups[at].1.push(element);
        }
        Ok(Value::object(groups.into_iter().map(|(key, list)| (key, Value::array(list)))))
    }

    fn extreme_by(&mut self, largest: bool) -> Result<Value, Error> {
        let list = self.array();
        if list.len() <= 1 {
            // The expression is not looked at then.
            return Ok(list.first().cloned().unwrap_or_default());
        }
        let Some(Argument::Reference(node)) = self.arguments.next() else { return Ok(Value::Null) };
        let mut keyed = Vec::with_capacity(list.len());
        for element in list.iter() {
            keyed.push((self.run.eval(node, element)?, element.clone()));
        }
        check_keys(&keyed, "invalid type, must be number")?;
        let mut best = 0;
        for at in 1..keyed.len() {
            let order = order(&keyed[at].0, &keyed[best].0);
            if if largest { order.is_gt() } else { order.is_lt() } {
                best = at;
            }
        }
        Ok(keyed.swap_remove(best).1)
    }

    fn pad(&mut self) -> Result<Value, Error> {
        let text = self.string();
        let width = self.count("width")?.unwrap_or(0);
        let padding = match self.arguments.next() {
            Some(Argument::Value(Value::String(padding))) => padding,
            _ => " ".into(),
        };
        if padding.len() > 1 {
            return Err(Error::new(format!(
                "invalid value, the function '{}' expects its 'pad' argument to be a string of length 1",
                self.name
            )));
        }
        let missing = width.saturating_sub(text.len());
        if missing > STRING_BYTES_MAX {
            return Err(self.too_long());
        }
        let padding = padding.repeat(missing);
        Ok(Value::string(if self.name == "pad_left" { padding + &text } else { [&*text, &padding].concat() }))
    }

    fn replace(&mut self) -> Result<Value, Error> {
        let (text, old, new) = (self.string(), self.string(), self.string());
        let count = self.count("count")?.unwrap_or(usize::MAX);
        let found = text.matches(&*old).take(count).count();
        if text.len().saturating_add(found.saturating_mul(new.len())) > STRING_BYTES_MAX {
            return Err(self.too_long());
        }
        Ok(Value::string(text.replacen(&*old, &new, count)))
    }

    fn split(&mut self) -> Result<Value, Error> {
        let (text, separator) = (self.string(), self.string());
        if text.is_empty() {
            return Ok(Value::array(Vec::new()));
        }
        let limit = self.count("count")?.map_or(usize::MAX, |count| count.saturating_add(1));
        let parts: Vec<Value> = if limit == 1 {
            vec![Value::String(text)]
        } else if separator.is_empty() {
            // Between all characters, and what is left over in one.
            let mut parts = Vec::new();
            let mut rest = &*text;
            while let Some(character) = rest.chars().next().filter(|_| parts.len() + 1 < limit) {
                let (first, behind) = rest.split_at(character.len_utf8());
                parts.push(Value::string(first));
                rest = behind;
            }
            if !rest.is_empty() {
                parts.push(Value::string(rest));
            }
            parts
        } else {
            text.splitn(limit, &*separator).map(Value::string).collect()
        };
        Ok(Value::array(parts))
    }

    fn trim(&mut self) -> Value {
        let text = self.string();
        let set = self.string();
        let is_cut = |character: char| {
            if set.is_empty() { character.is_whitespace() } else { set.contains(character) }
        };
        Value::string(match self.name {
            "trim_left" => text.trim_start_matches(is_cut),
            "trim_right" => text.trim_end_matches(is_cut),
            _ => text.trim_matches(is_cut),
        })
    }
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => Some(text),
        _ => None,
    }
}

fn numbers(list: &[Value]) -> Vec<f64> {
    let number = |value: &Value| match value {
        Value::Number(number) => Some(*number),
        _ => None,
    };
    list.iter().filter_map(number).collect()
}

/// The order of two numbers or two strings.
fn order(a: &Value, b: &Value) -> std::cmp::Ordering {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.total_cmp(b),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        _ => std::cmp::Ordering::Equal,
    }
}

fn extreme(list: &[Value], largest: bool) -> Value {
    let mut best = list.first();
    for value in list.iter().skip(1) {
        let order = best.map_or(std::cmp::Ordering::Equal, |best| order(value, best));
        if if largest { order.is_gt() } else { order.is_lt() } {
            best = Some(value);
        }
    }
    best.cloned().unwrap_or_default()
}

/// Whether all keys are numbers, or all are strings.
fn check_keys(keyed: &[(Value, Value)], mixed: &str) -> Result<(), Error> {
    let numbers = keyed.iter().all(|(key, _)| matches!(key, Value::Number(_)));
    let strings = keyed.iter().all(|(key, _)| matches!(key, Value::String(_)));
    match keyed.first() {
        _ if numbers || strings => Ok(()),
        Some((Value::Number(_) | Value::String(_), _)) => Err(Error::new(mixed)),
        _ => Err(Error::new("invalid type, must be number of string")),
    }
}

/// A character in another case; Go knows only such cases as are one character.
fn single(character: char, mut cased: impl Iterator<Item = char>) -> char {
    match (cased.next(), cased.next()) {
        (Some(one), None) => one,
        _ => character,
    }
}

/// A number as Go's `ParseFloat` reads it, but for hexadecimal ones. It takes underscores between digits; what is too large is
/// an error.
fn go_float(text: &str) -> Option<f64> {
    let bytes = text.as_bytes();
    let is_digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit);
    let separates = |at: usize| is_digit(at.checked_sub(1)) && is_digit(Some(at + 1));
    if bytes.iter().enumerate().any(|(at, byte)| *byte == b'_' && !separates(at)) {
        return None;
    }
    let value: f64 = text.replace('_', "").parse().ok()?;
    let named = text.trim_start_matches(['+', '-']).starts_with(|first: char| first.is_ascii_alphabetic());
    (value.is_finite() || named).then_some(value)
}
