//! Go's own functions.

use std::cmp::Ordering;

use super::Type::{Any, Reflect, Text};
use super::{Answer, Function, Special, Type, any, function, text, variadic};
use crate::template::{Exec, Value, format};
use crate::text;

const fn special(name: &'static str, special: Special) -> Function {
    Function { name, params: &[Reflect], variadic: Some(Reflect), special: Some(special), run: |_, _| Ok(Value::Nil) }
}

pub(super) const FUNCTIONS: &[Function] = &[
    special("and", Special::And),
    variadic("call", &[Reflect], Reflect, |_, args| match any(args, 0) {
        Value::Nil => Err("call of nil".to_owned()),
        value => Err(format!("non-function of type {}", value.type_name())),
    }),
    variadic("eq", &[Reflect], Reflect, |_, args| equal_any(args).map(Value::Bool)),
    function("ge", COMPARED, |_, args| Ok(Value::Bool(!less(args)?))),
    function("gt", COMPARED, |_, args| Ok(Value::Bool(!less_or_equal(args)?))),
    variadic("html", &[], Any, |_, args| Ok(Value::from(escape_html(&joined(args)?)))),
    variadic("index", &[Reflect], Reflect, |_, args| index(args)),
    variadic("js", &[], Any, |_, args| Ok(Value::from(escape_js(&joined(args)?)))),
    function("le", COMPARED, |_, args| less_or_equal(args).map(Value::Bool)),
    function("len", &[Reflect], |_, args| match any(args, 0) {
        Value::Text(text) => Ok(Value::Int(text.len() as i64)),
        Value::List(list) => Ok(Value::Int(list.items.len() as i64)),
        Value::Dict(dict) => Ok(Value::Int(dict.map.borrow().len() as i64)),
        other => Err(format!("len of type {}", other.type_name())),
    }),
    function("lt", COMPARED, |_, args| less(args).map(Value::Bool)),
    function("ne", COMPARED, |_, args| Ok(Value::Bool(!equal_any(args)?))),
    function("not", &[Reflect], |_, args| Ok(Value::Bool(!any(args, 0).is_true()))),
    special("or", Special::Or),
    variadic("print", &[], Any, |_, args| sprint(args).map(Value::from)),
    variadic("printf", &[Text], Any, printf),
    variadic("println", &[], Any, |_, args| {
        let mut out = Vec::new();
        for (index, arg) in args.iter().enumerate() {
            if index > 0 {
                out.push(b' ');
            }
            print(arg, &mut out)?;
        }
        out.push(b'\n');
        Ok(Value::from(out))
    }),
    variadic("urlquery", &[], Any, |_, args| Ok(Value::from(super::urls::query_escape(&joined(args)?)))),
];

const COMPARED: &[Type] = &[Reflect, Reflect];

fn printf(_: &mut Exec<'_>, args: &[Value]) -> Answer {
    let layout = text(args, 0);
    let values: Vec<_> = args[1..].iter().map(Value::to_arg).collect::<Result<_, _>>()?;
    format(layout, &values).map(Value::from)
}

fn print(value: &Value, out: &mut Vec<u8>) -> Result<(), String> {
    match value {
        Value::Nil => out.extend_from_slice(b"<nil>"),
        value => out.extend_from_slice(&value.print()?),
    }
    Ok(())
}

/// As `fmt.Sprint`: with spaces between operands when neither is a text.
pub(super) fn sprint(args: &[Value]) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut after_text = true;
    for arg in args {
        let is_text = matches!(arg, Value::Text(_));
        if !after_text && !is_text {
            out.push(b' ');
        }
        print(arg, &mut out)?;
        after_text = is_text;
    }
    Ok(out)
}

/// The arguments as one text, as the escaping functions print them.
fn joined(args: &[Value]) -> Result<Vec<u8>, String> {
    if !args.iter().any(|arg| matches!(arg, Value::Nil)) {
        return sprint(args);
    }
    let shown = |arg: &Value| if matches!(arg, Value::Nil) { Value::from("<no value>") } else { arg.clone() };
    sprint(&args.iter().map(shown).collect::<Vec<_>>())
}

fn escape_html(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            0 => out.extend_from_slice("\u{fffd}".as_bytes()),
            b'"' => out.extend_from_slice(b"&#34;"),
            b'\'' => out.extend_from_slice(b"&#39;"),
            b'&' => out.extend_from_slice(b"&amp;"),
            b'<' => out.extend_from_slice(b"&lt;"),
            b'>' => out.extend_from_slice(b"&gt;"),
            other => out.push(*other),
        }
    }
    out
}

fn escape_js(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for (at, character, len) in text::chars(bytes) {
        let code = u32::from(character);
        match character {
            '\\' => out.extend_from_slice(b"\\\\"),
            '\'' => out.extend_from_slice(b"\\'"),
            '"' => out.extend_from_slice(b"\\\""),
            '<' => out.extend_from_slice(b"\\u003C"),
            '>' => out.extend_from_slice(b"\\u003E"),
            '&' => out.extend_from_slice(b"\\u0026"),
            '=' => out.extend_from_slice(b"\\u003D"),
            '\0'..' ' => out.extend_from_slice(format!("\\u{code:04X}").as_bytes()),
            _ if character.is_ascii() || text::is_printable(character) => out.extend_from_slice(&bytes[at..at + len]),
            _ => out.extend_from_slice(format!("\\u{code:04X}").as_bytes()),
        }
    }
    out
}

/// The place that an index of a list or text names; it may be that behind the last item.
fn position(index: &Value, len: usize) -> Result<usize, String> {
    let place = match index {
        Value::Nil => return Err("cannot index slice/array with nil".to_owned()),
        Value::Uint8(place) => i64::from(*place),
        other => other.as_int().ok_or_else(|| format!("cannot index slice/array with type {}", other.type_name()))?,
    };
    usize::try_from(place).ok().filter(|place| *place <= len).ok_or_else(|| format!("index out of range: {place}"))
}

fn index(args: &[Value]) -> Answer {
    let mut item = any(args, 0).clone();
    if matches!(item, Value::Nil) {
        return Err("index of untyped nil".to_owned());
    }
    let out_of_range = || "reflect: slice index out of range".to_owned();
    for index in &args[1..] {
        item = match &item {
            Value::Nil => return Err("index of nil pointer".to_owned()),
            Value::Text(text) => {
                let byte = text.get(position(index, text.len())?).ok_or_else(out_of_range)?;
                Value::Uint8(*byte)
            }
            Value::List(list) => list.items.get(position(index, list.items.len())?).ok_or_else(out_of_range)?.clone(),
            Value::Dict(dict) => {
                let key = match index {
                    Value::Text(key) => key,
                    Value::Nil => return Err("value is nil; should be of type string".to_owned()),
                    other => return Err(format!("value has type {}; should be string", other.type_name())),
                };
                let absent = if dict.texts { Value::from("") } else { Value::Nil };
                dict.map.borrow().get(key).cloned().unwrap_or(absent)
            }
            other => return Err(format!("can't index item of type {}", other.type_name())),
        };
    }
    Ok(item)
}

/// What kinds of values can be compared.
#[derive(PartialEq, Eq)]
enum Basic<'a> {
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(u64),
    Text(&'a [u8]),
    Other,
}

fn basic(value: &Value) -> Basic<'_> {
    match value {
        Value::Bool(value) => Basic::Bool(*value),
        Value::Uint8(value) => Basic::Uint(u64::from(*value)),
        Value::Float(value) => Basic::Float(value.to_bits()),
        Value::Text(text) => Basic::Text(text),
        other => other.as_int().map_or(Basic::Other, Basic::Int),
    }
}

fn incompatible(a: &Value, b: &Value) -> String {
    format!("incompatible types for comparison: {} and {}", a.type_name(), b.type_name())
}

fn equal_any(args: &[Value]) -> Result<bool, String> {
    let [first, others @ ..] = args else { return Err(NOTHING_TO_COMPARE.to_owned()) };
    if others.is_empty() {
        return Err(NOTHING_TO_COMPARE.to_owned());
    }
    for other in others {
        if equal(first, other)? {
            return Ok(true);
        }
    }
    Ok(false)
}

const NOTHING_TO_COMPARE: &str = "missing argument for comparison";

fn equal(a: &Value, b: &Value) -> Result<bool, String> {
    Ok(match (basic(a), basic(b)) {
        (Basic::Int(a), Basic::Uint(b)) | (Basic::Uint(b), Basic::Int(a)) => u64::try_from(a) == Ok(b),
        (Basic::Bool(a), Basic::Bool(b)) => a == b,
        (Basic::Int(a), Basic::Int(b)) => a == b,
        (Basic::Uint(a), Basic::Uint(b)) => a == b,
        (Basic::Float(a), Basic::Float(b)) => f64::from_bits(a) == f64::from_bits(b),
        (Basic::Text(a), Basic::Text(b)) => a == b,
        (Basic::Other, Basic::Other) => match (a, b) {
            _ if !matches!((a, b), (Value::Nil, _) | (_, Value::Nil)) && a.kind_name() != b.kind_name() => {
                return Err(format!("non-comparable types {}, {}", a.type_name(), b.type_name()));
            }
            _ if a.is_nil() || b.is_nil() => a.is_nil() == b.is_nil(),
            (Value::Time(a), Value::Time(b)) => a == b,
            (Value::Version(a), Value::Version(b)) => std::rc::Rc::ptr_eq(a, b),
            _ => return Err(format!("non-comparable type {}", b.type_name())),
        },
        _ if matches!((a, b), (Value::Nil, _) | (_, Value::Nil)) => false,
        _ => return Err(incompatible(a, b)),
    })
}

fn less(args: &[Value]) -> Result<bool, String> {
    let (a, b) = (any(args, 0), any(args, 1));
    let bad = || "invalid type for comparison".to_owned();
    Ok(match (basic(a), basic(b)) {
        (Basic::Other, _) | (_, Basic::Other) | (Basic::Bool(_), Basic::Bool(_)) => return Err(bad()),
        (Basic::Int(a), Basic::Uint(b)) => u64::try_from(a).is_ok_and(|a| a < b) || a < 0,
        (Basic::Uint(a), Basic::Int(b)) => u64::try_from(b).is_ok_and(|b| a < b),
        (Basic::Int(a), Basic::Int(b)) => a < b,
        (Basic::Uint(a), Basic::Uint(b)) => a < b,
        (Basic::Float(a), Basic::Float(b)) => f64::from_bits(a).partial_cmp(&f64::from_bits(b)) == Some(Ordering::Less),
        (Basic::Text(a), Basic::Text(b)) => a < b,
        _ => return Err(incompatible(a, b)),
    })
}

fn less_or_equal(args: &[Value]) -> Result<bool, String> {
    Ok(less(args)? || equal(any(args, 0), any(args, 1))?)
}
