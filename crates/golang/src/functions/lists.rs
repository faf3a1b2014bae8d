//! Lists.

use std::rc::Rc;

use super::Type::{Any, Int};
use super::math::to_int;
use super::strings::texts;
use super::{Answer, Function, Run, Type, any, function, int, variadic};
use crate::template::{Exec, ListKind, Value};

const ONE: &[Type] = &[Any];
const TWO: &[Type] = &[Any, Any];
const CHUNKED: &[Type] = &[Int, Any];

pub(super) const FUNCTIONS: &[Function] = &[
    function("append", TWO, push),
    function("chunk", CHUNKED, chunk),
    function("compact", ONE, compact),
    variadic("concat", &[], Any, |exec, args| {
        let mut joined = Vec::new();
        for list in args {
            joined.extend_from_slice(items(list, "concat type", " as list")?);
        }
        exec.charge(joined.len() * 16)?;
        if joined.is_empty() {
            return Ok(nil_list());
        }
        exec.list(ListKind::Any, joined)
    }),
    function("first", ONE, FIRST),
    function("has", TWO, has),
    function("initial", ONE, INITIAL),
    function("last", ONE, LAST),
    variadic("list", &[], Any, list),
    function("mustAppend", TWO, push),
    function("mustChunk", CHUNKED, chunk),
    function("mustCompact", ONE, compact),
    function("mustFirst", ONE, FIRST),
    function("mustHas", TWO, has),
    function("mustInitial", ONE, INITIAL),
    function("mustLast", ONE, LAST),
    function("mustPrepend", TWO, prepend),
    function("mustPush", TWO, push),
    function("mustRest", ONE, REST),
    function("mustReverse", ONE, REVERSE),
    variadic("mustSlice", ONE, Any, slice),
    function("mustUniq", ONE, uniq),
    variadic("mustWithout", ONE, Any, without),
    function("prepend", TWO, prepend),
    function("push", TWO, push),
    function("rest", ONE, REST),
    function("reverse", ONE, REVERSE),
    variadic("slice", ONE, Any, slice),
    function("sortAlpha", ONE, |exec, args| {
        let mut sorted = texts(any(args, 0))?;
        if matches!(any(args, 0), Value::Nil) {
            sorted.push(bytes::Bytes::from_static(b"<nil>"));
        }
        sorted.sort_unstable();
        exec.list(ListKind::Text, sorted.into_iter().map(Value::Text).collect())
    }),
    variadic("tuple", &[], Any, list),
    function("uniq", ONE, uniq),
    variadic("without", ONE, Any, without),
];

const FIRST: Run = |_, args| Ok(items(any(args, 0), "find first on type", "")?.first().cloned().unwrap_or(Value::Nil));
const LAST: Run = |_, args| Ok(items(any(args, 0), "find last on type", "")?.last().cloned().unwrap_or(Value::Nil));
const REST: Run = |exec, args| match items(any(args, 0), "find rest on type", "")? {
    [] => Ok(nil_list()),
    [_, rest @ ..] => exec.list(ListKind::Any, rest.to_vec()),
};
const INITIAL: Run = |exec, args| match items(any(args, 0), "find initial on type", "")? {
    [] => Ok(nil_list()),
    [initial @ .., _] => exec.list(ListKind::Any, initial.to_vec()),
};
const REVERSE: Run = |exec, args| {
    let reversed = items(any(args, 0), "find reverse on type", "")?.iter().rev().cloned().collect();
    exec.list(ListKind::Any, reversed)
};

fn nil_list() -> Value {
    Value::nil_list(ListKind::Any)
}

/// The items of a list. The words stand in the error.
fn items<'a>(value: &'a Value, what: &str, after: &str) -> Result<&'a [Value], String> {
    match value {
        Value::List(list) => Ok(&list.items),
        Value::Nil => Err("runtime error: invalid memory address or nil pointer dereference".to_owned()),
        other => Err(format!("Cannot {what} {}{after}", other.kind_name())),
    }
}

fn list(exec: &mut Exec<'_>, args: &[Value]) -> Answer {
    exec.list(ListKind::Any, args.to_vec())
}

fn push(exec: &mut Exec<'_>, args: &[Value]) -> Answer {
    let mut list = items(any(args, 0), "push on type", "")?.to_vec();
    list.push(any(args, 1).clone());
    exec.list(ListKind::Any, list)
}

fn prepend(exec: &mut Exec<'_>, args: &[Value]) -> Answer {
    let mut list = vec![any(args, 1).clone()];
    list.extend_from_slice(items(any(args, 0), "prepend on type", "")?);
    exec.list(ListKind::Any, list)
}

fn chunk(exec: &mut Exec<'_>, args: &[Value]) -> Answer {
    let list = items(any(args, 1), "chunk type", "")?;
    let (size, len) = (int(args, 0), list.len() as i64);
    let bad = || "runtime error: makeslice: len out of range".to_owned();
    if size == 0 {
        return Err(bad());
    }
    // The reference computes with floating-point numbers; a negative size may still make none, or one.
    let count = ((len - 1) as f64 / size as f64).floor() as i64 + 1;
    let mut chunks = Vec::new();
    let Ok(size) = usize::try_from(size) else {
        return match count {
            0 => exec.list(ListKind::Lists, chunks),
            1 if size != -1 && len == 1 => {
                chunks.push(exec.list(ListKind::Any, list.to_vec())?);
                exec.list(ListKind::Lists, chunks)
            }
            _ => Err(bad()),
        };
    };
    for part in list.chunks(size) {
        chunks.push(exec.list(ListKind::Any, part.to_vec())?);
    }
    exec.list(ListKind::Lists, chunks)
}

/// Whether a value is the zero value of its type.
pub(super) fn is_empty(value: &Value) -> bool {
    !value.is_true()
}

fn compact(exec: &mut Exec<'_>, args: &[Value]) -> Answer {
    let list = items(any(args, 0), "compact on type", "")?;
    let kept = list.iter().filter(|item| !is_empty(item)).cloned().collect();
    exec.list(ListKind::Any, kept)
}

fn contains(exec: &mut Exec<'_>, list: &[Value], value: &Value) -> Result<bool, String> {
    for item in list {
        exec.charge(16)?;
        if value.deep_equal(item)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn uniq(exec: &mut Exec<'_>, args: &[Value]) -> Answer {
    let mut kept: Vec<Value> = Vec::new();
    for item in items(any(args, 0), "find uniq on type", "")? {
        if !contains(exec, &kept, item)? {
            kept.push(item.clone());
        }
    }
    exec.list(ListKind::Any, kept)
}

fn without(exec: &mut Exec<'_>, args: &[Value]) -> Answer {
    let mut kept = Vec::new();
    for item in items(any(args, 0), "find without on type", "")? {
        if !contains(exec, &args[1..], item)? {
            kept.push(item.clone());
        }
    }
    exec.list(ListKind::Any, kept)
}

fn has(exec: &mut Exec<'_>, args: &[Value]) -> Answer {
    if matches!(any(args, 1), Value::Nil) {
        return Ok(Value::Bool(false));
    }
    let list = items(any(args, 1), "find has on type", "")?;
    contains(exec, list, any(args, 0)).map(Value::Bool)
}

fn slice(exec: &mut Exec<'_>, args: &[Value]) -> Answer {
    let list = match any(args, 0) {
        Value::List(list) => Rc::clone(list),
        Value::Nil => return Err("runtime error: invalid memory address or nil pointer dereference".to_owned()),
        other => return Err(format!("list should be type of slice or array but {}", other.kind_name())),
    };
    if list.items.is_empty() {
        return Ok(Value::Nil);
    }
    let start = args.get(1).map_or(0, to_int);
    let end = args.get(2).map_or(list.items.len() as i64, to_int);
    let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
    let part = range.filter(|(start, end)| start <= end).and_then(|(start, end)| list.items.get(start..end));
    match part {
        Some(part) => exec.list(list.kind, part.to_vec()),
        None => Err("reflect.Value.Slice: slice index out of bounds".to_owned()),
    }
}
