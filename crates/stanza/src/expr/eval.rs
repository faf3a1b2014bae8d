//! Running programs.

use corten_golang::time::Time;
use corten_signal::regex::GoRegex;

use super::VALUES_MAX;
use super::functions;
use super::ops;
use super::parse::{Binary, Node, Over, Part, Var};
use super::print;
use crate::entry::Entry;
use crate::value::{Map, Text, Value};

/// A value of a program: one of the entry or of the program, or one that was made.
#[derive(Clone, Debug)]
pub(super) enum Val<'a> {
    Ref(&'a Value),
    Own(Value),
    /// Nanoseconds.
    Duration(i64),
}

static NULL: Value = Value::Null;

impl<'a> Val<'a> {
    pub(super) const NULL: Val<'a> = Val::Ref(&NULL);

    /// The value; a duration has none.
    pub(super) fn get(&self) -> &Value {
        match self {
            Val::Ref(value) => value,
            Val::Own(value) => value,
            Val::Duration(_) => &NULL,
        }
    }

    pub(super) fn into_value(self) -> Value {
        match self {
            Val::Ref(value) => value.clone(),
            Val::Own(value) => value,
            Val::Duration(ns) => Value::str(print::duration(ns)),
        }
    }

    pub(super) fn is_null(&self) -> bool {
        !matches!(self, Val::Duration(_)) && *self.get() == Value::Null
    }

    pub(super) fn go_type(&self) -> &'static str {
        if let Val::Duration(_) = self { "time.Duration" } else { self.get().go_type() }
    }

    pub(super) fn text(&self) -> Result<&Text, String> {
        match self.get() {
            Value::Str(text) => Ok(text),
            _ => Err(format!("interface conversion: interface {{}} is {}, not string", self.shown_type())),
        }
    }

    pub(super) fn truth(&self) -> Result<bool, String> {
        match self.get() {
            Value::Bool(value) => Ok(*value),
            _ => Err(format!("interface conversion: interface {{}} is {}, not bool", self.shown_type())),
        }
    }

    fn shown_type(&self) -> &'static str {
        if self.is_null() { "nil" } else { self.go_type() }
    }

    /// A whole number, as indexes are.
    pub(super) fn whole(&self) -> Result<i64, String> {
        match self.get() {
            Value::Int(number) => Ok(*number),
            Value::Float(number) => Ok(*number as i64),
            _ => Err(format!("invalid operation: int({})", self.go_type())),
        }
    }

    pub(super) fn number(&self) -> Result<f64, String> {
        match self.get() {
            Value::Int(number) => Ok(*number as f64),
            Value::Float(number) => Ok(*number),
            _ => Err(format!("invalid operation: float({})", self.go_type())),
        }
    }
}

impl From<bool> for Val<'_> {
    fn from(value: bool) -> Self {
        Val::Own(Value::Bool(value))
    }
}

impl From<i64> for Val<'_> {
    fn from(value: i64) -> Self {
        Val::Own(Value::Int(value))
    }
}

impl From<f64> for Val<'_> {
    fn from(value: f64) -> Self {
        Val::Own(Value::Float(value))
    }
}

impl From<Text> for Val<'_> {
    fn from(text: Text) -> Self {
        Val::Own(Value::Str(text))
    }
}

/// Why there is no value.
pub(super) enum Fail {
    /// Where, and what is wrong.
    At(u32, String),
    /// An optional member has nothing to be a member of.
    Chain,
}

/// What a predicate looks at.
struct Scope<'a> {
    item: Val<'a>,
    index: i64,
    acc: Val<'a>,
}

/// A run of a program over an entry.
pub(super) struct Run<'a> {
    entry: &'a Entry,
    locals: Vec<Val<'a>>,
    scopes: Vec<Scope<'a>>,
    /// How many values may still be made.
    left: usize,
}

pub(super) type Got<'a> = Result<Val<'a>, Fail>;

/// The time of an entry that has none, as Go has it.
const NO_TIME: i64 = -62_135_596_800;

impl<'a> Run<'a> {
    pub(super) fn new(entry: &'a Entry, slots: usize) -> Self {
        Run { entry, locals: vec![Val::NULL; slots], scopes: Vec::new(), left: VALUES_MAX }
    }

    /// Counts values that are made.
    fn spend(&mut self, values: usize, at: u32) -> Result<(), Fail> {
        match self.left.checked_sub(values) {
            Some(left) => self.left = left,
            None => return Err(Fail::At(at, "memory budget exceeded".to_owned())),
        }
        Ok(())
    }

    fn all(&mut self, nodes: &'a [Node]) -> Result<Vec<Val<'a>>, Fail> {
        nodes.iter().map(|node| self.value(node)).collect()
    }

    fn truth(&mut self, node: &'a Node) -> Result<bool, Fail> {
        let value = self.value(node)?;
        value.truth().map_err(|message| Fail::At(node.at, message))
    }

    pub(super) fn value(&mut self, node: &'a Node) -> Got<'a> {
        let fail = |message: String| Fail::At(node.at, message);
        Ok(match &node.part {
            Part::Const(value) => Val::Ref(value),
            Part::Var(Var::Body) => Val::Ref(&self.entry.body),
            Part::Var(Var::Attributes) => Val::Ref(&self.entry.attributes),
            Part::Var(Var::Resource) => Val::Ref(&self.entry.resource),
            Part::Var(Var::Timestamp) => {
                Val::Own(Value::Time(self.entry.timestamp.unwrap_or_else(|| Time::utc(NO_TIME, 0))))
            }
            Part::Var(Var::Unknown) => Val::NULL,
            Part::Local(slot) => self.locals.get(*slot).cloned().unwrap_or(Val::NULL),
            Part::Item => self.scopes.last().map_or(Val::NULL, |scope| scope.item.clone()),
            Part::Index => self.scopes.last().map_or(0, |scope| scope.index).into(),
            Part::Acc => self.scopes.last().map_or(Val::NULL, |scope| scope.acc.clone()),
            Part::Negate(of) => {
                let value = self.value(of)?;
                match (&value, value.get()) {
                    (Val::Duration(ns), _) => Val::Duration(ns.wrapping_neg()),
                    (_, Value::Int(number)) => number.wrapping_neg().into(),
                    (_, Value::Float(number)) => (-number).into(),
                    _ => return Err(fail(format!("invalid operation: - {}", value.go_type()))),
                }
            }
            Part::Plus(of) => self.value(of)?,
            Part::Not(of) => {
                let value = self.value(of)?;
                (!value.truth().map_err(fail)?).into()
            }
            Part::Binary(binary, nodes) => {
                let [left, right] = &**nodes;
                let (left, right) = (self.value(left)?, self.value(right)?);
                if let (Binary::Range, Ok(from), Ok(to)) = (binary, left.whole(), right.whole()) {
                    let count = usize::try_from(to.saturating_sub(from).saturating_add(1)).unwrap_or(0);
                    self.spend(count, node.at)?;
                }
                let value = ops::binary(*binary, &left, &right).map_err(fail)?;
                self.spend(joined(*binary, &value), node.at)?;
                value
            }
            Part::Matches(of, regex) => {
                let value = self.value(of)?;
                matches(&value, regex).map_err(fail)?.into()
            }
            Part::And(nodes) | Part::Or(nodes) => {
                let ends = matches!(node.part, Part::Or(_));
                // The last one need not be true or false: it is the value.
                let Some((last, nodes)) = nodes.split_last() else { return Ok(Val::NULL) };
                for of in nodes {
                    if self.value(of)?.truth().map_err(fail)? == ends {
                        return Ok(ends.into());
                    }
                }
                self.value(last)?
            }
            Part::Coalesce(nodes) => {
                let [left, right] = &**nodes;
                let value = self.value(left)?;
                if value.is_null() { self.value(right)? } else { value }
            }
            Part::Cond(nodes) => {
                let [condition, then, other] = &**nodes;
                if self.truth(condition)? { self.value(then)? } else { self.value(other)? }
            }
            Part::Member { of, key, optional } => {
                let of = self.value(of)?;
                if *optional && of.is_null() {
                    return Err(Fail::Chain);
                }
                let key = self.value(key)?;
                ops::member(of, &key).map_err(fail)?
            }
            Part::Slice { of, from, to } => {
                let of = self.value(of)?;
                let mut bound = |node: &'a Option<Box<Node>>| match node {
                    Some(node) => self.value(node)?.whole().map(Some).map_err(fail),
                    None => Ok(None),
                };
                let (from, to) = (bound(from)?, bound(to)?);
                ops::slice(&of, from, to).map_err(fail)?
            }
            Part::Chain(of) => match self.value(of) {
                Err(Fail::Chain) => Val::NULL,
                other => other?,
            },
            Part::Method { of, name, args } => {
                let of = self.value(of)?;
                let args = self.all(args)?;
                functions::method(&of, name, &args).map_err(fail)?
            }
            Part::Call(builtin, args) => {
                let args = self.all(args)?;
                let value = (builtin.run)(&args).map_err(fail)?;
                self.spend(size(&value), node.at)?;
                value
            }
            Part::Env(args) => {
                let args = self.all(args)?;
                let [name] = &*args else {
                    return Err(fail(format!("invalid number of arguments: expected 1, got {}", args.len())));
                };
                let name = name.text().map_err(fail)?.lossy();
                // Names with these signs are none.
                let is_name = !name.is_empty() && !name.contains(['=', '\0']);
                let value = is_name.then(|| std::env::var_os(&*name)).flatten().unwrap_or_default();
                Text::from(value.into_encoded_bytes()).into()
            }
            Part::Unknown(args) => {
                self.all(args)?;
                return Err(fail("invalid operation: cannot call nil".to_owned()));
            }
            Part::Over { over, list, predicate, last } => {
                let list = self.value(list)?;
                return self.over(*over, list, predicate.as_deref(), last.as_deref(), node.at);
            }
            Part::List(nodes) => {
                self.spend(nodes.len(), node.at)?;
                let values = self.all(nodes)?;
                Val::Own(Value::List(values.into_iter().map(Val::into_value).collect()))
            }
            Part::Map(pairs) => {
                self.spend(pairs.len(), node.at)?;
                let mut map = Map::with_capacity(pairs.len());
                for (key, value) in pairs {
                    let key = self.value(key)?.text().map_err(fail)?.clone();
                    map.put(key, self.value(value)?.into_value());
                }
                Val::Own(Value::Map(map))
            }
            Part::Let { slot, value, then } => {
                let value = self.value(value)?;
                if let Some(local) = self.locals.get_mut(*slot) {
                    *local = value;
                }
                self.value(then)?
            }
            Part::Sequence(nodes) => {
                let mut value = Val::NULL;
                for of in nodes {
                    value = self.value(of)?;
                }
                value
            }
        })
    }

    fn over(
        &mut self,
        over: Over,
        list: Val<'a>,
        predicate: Option<&'a Node>,
        last: Option<&'a Node>,
        at: u32,
    ) -> Got<'a> {
        let items: Vec<Val<'a>> = match list {
            Val::Ref(Value::List(list)) => list.iter().map(Val::Ref).collect(),
            Val::Own(Value::List(list)) => list.into_iter().map(Val::Own).collect(),
            other => {
                return Err(Fail::At(at, format!("reflect: call of reflect.Value.Len on {} Value", other.go_type())));
            }
        };
        self.spend(items.len(), at)?;
        let mut acc = match (over, last) {
            (Over::Reduce, Some(last)) => Some(self.value(last)?),
            _ => None,
        };
        let descending = match (over, last) {
            (Over::SortBy, Some(last)) => {
                let order = self.value(last)?;
                ops::is_descending(order.text().map_err(|message| Fail::At(at, message))?)
                    .map_err(|message| Fail::At(at, message))?
            }
            _ => false,
        };
        let (mut count, mut total) = (0i64, Val::from(0i64));
        let mut kept: Vec<Value> = Vec::new();
        let mut groups = Map::default();
        let mut keyed: Vec<(Value, Value)> = Vec::new();
        let backwards = matches!(over, Over::FindLast | Over::FindLastIndex);
        for turn in 0..items.len() {
            let index = if backwards { items.len() - 1 - turn } else { turn };
            let item = items[index].clone();
            if over == Over::Reduce && acc.is_none() {
                acc = Some(item);
                continue;
            }
            let scope = Scope { item: item.clone(), index: index as i64, acc: acc.clone().unwrap_or(Val::NULL) };
            self.scopes.push(scope);
            let value = match predicate {
                Some(predicate) => self.value(predicate),
                None => Ok(item.clone()),
            };
            self.scopes.pop();
            let value = value?;
            let fail = |message: String| Fail::At(predicate.map_or(at, |predicate| predicate.at), message);
            let holds = |value: &Val<'a>| value.truth().map_err(fail);
            match over {
                Over::All if !holds(&value)? => return Ok(false.into()),
                Over::None if holds(&value)? => return Ok(false.into()),
                Over::Any if holds(&value)? => return Ok(true.into()),
                Over::One | Over::Count => count += i64::from(holds(&value)?),
                Over::Filter if holds(&value)? => kept.push(item.into_value()),
                Over::Map => kept.push(value.into_value()),
                Over::Sum => {
                    total = ops::binary(Binary::Add, &total, &value).map_err(fail)?;
                    self.spend(joined(Binary::Add, &total), at)?;
                }
                Over::Find | Over::FindLast if holds(&value)? => return Ok(item),
                Over::FindIndex | Over::FindLastIndex if holds(&value)? => return Ok((index as i64).into()),
                Over::GroupBy => {
                    // Keys of maps are texts: values that read the same are one group.
                    let key = Text::from(print::go_text(&value.into_value()));
                    match groups.get_mut(&key) {
                        Some(Value::List(group)) => group.push(item.into_value()),
                        _ => groups.put(key, Value::List(vec![item.into_value()])),
                    }
                }
                Over::SortBy => keyed.push((value.into_value(), item.into_value())),
                Over::Reduce if matches!(&value, Val::Own(value) if nests_deeper(value, NESTING_MAX)) => {
                    return Err(Fail::At(at, "memory budget exceeded".to_owned()));
                }
                Over::Reduce => acc = Some(value),
                _ => {}
            }
        }
        Ok(match over {
            Over::All | Over::None => true.into(),
            Over::Any => false.into(),
            Over::One => (count == 1).into(),
            Over::Filter | Over::Map => Val::Own(Value::List(kept)),
            Over::Count => count.into(),
            Over::Sum => total,
            Over::Find | Over::FindLast => Val::NULL,
            Over::FindIndex | Over::FindLastIndex => Val::NULL,
            Over::GroupBy => Val::Own(Value::Map(groups)),
            Over::SortBy => {
                ops::sort(&mut keyed, |(key, _)| key, descending);
                Val::Own(Value::List(keyed.into_iter().map(|(_, item)| item).collect()))
            }
            Over::Reduce => match acc {
                Some(acc) => acc,
                None => return Err(Fail::At(at, "reduce of empty array with no initial value".to_owned())),
            },
        })
    }
}

/// How deep values may nest that are made of values that were made before.
const NESTING_MAX: usize = 500;

/// Whether a value nests deeper than so many levels.
fn nests_deeper(value: &Value, levels: usize) -> bool {
    let Some(within) = levels.checked_sub(1) else { return true };
    match value {
        Value::List(list) => list.iter().any(|value| nests_deeper(value, within)),
        Value::Map(map) => map.iter().any(|(_, value)| nests_deeper(value, within)),
        _ => false,
    }
}

/// What a text counts as that was made by joining two: one that doubles in each turn of a loop has an end.
fn joined(binary: Binary, value: &Val<'_>) -> usize {
    match value {
        Val::Own(Value::Str(text)) if binary == Binary::Add => text.len() / 128,
        _ => 0,
    }
}

/// What a value that was made counts as.
fn size(value: &Val<'_>) -> usize {
    match value {
        Val::Own(Value::List(list)) => list.len(),
        Val::Own(Value::Map(map)) => map.len(),
        // A text counts as well, but less.
        Val::Own(Value::Str(text)) => text.len() / 16,
        _ => 0,
    }
}

pub(super) fn matches(value: &Val<'_>, regex: &GoRegex) -> Result<bool, String> {
    let bytes: &[u8] = match value.get() {
        Value::Null => return Ok(false),
        Value::Str(text) => text,
        Value::Bytes(bytes) => bytes,
        _ => return Err(format!("interface conversion: interface {{}} is {}, not []uint8", value.go_type())),
    };
    Ok(match std::str::from_utf8(bytes) {
        Ok(text) => regex.is_match(text),
        Err(_) => regex.is_match_bytes(bytes, &mut Default::default()),
    })
}
