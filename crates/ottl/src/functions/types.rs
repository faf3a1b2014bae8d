//! Asking for types, and making one of another.

use corten_golang::{parse_float, parse_int};
use corten_otlp::Value;

use super::Kind::{Any, Anys, Bool, BoolLike, BytesLike, Double, DoubleLike, Int, IntLike, Map, Text, TextLike};
use super::{Arg, Function, Got, Prepared, Refused, param, plain};
use crate::error::EvalError;
use crate::item::Item;
use crate::program::{Call, Ex};
use crate::value::{Const, Val, hex, unhex};

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "Bool",
        params: &[param("target", BoolLike)],
        prepare: plain,
        run: |call, item| match call.any(0, item)? {
            Val::Nil => Ok(Val::Nil),
            Val::Bool(value) => Ok(Val::Bool(value)),
            Val::Int(value) => Ok(Val::Bool(value != 0)),
            Val::Double(value) => Ok(Val::Bool(value != 0.0)),
            value => match value.text(item.arena) {
                Some(text) => parse_bool(text).map(Val::Bool).ok_or_else(|| invalid("ParseBool", text)),
                None => Err(unsupported(&value)),
            },
        },
    },
    Function {
        name: "Int",
        params: &[param("target", IntLike)],
        prepare: plain,
        run: |call, item| match call.any(0, item)? {
            Val::Nil => Ok(Val::Nil),
            Val::Int(value) => Ok(Val::Int(value)),
            Val::Bool(value) => Ok(Val::Int(i64::from(value))),
            Val::Double(value) => Ok(Val::Int(to_int(value))),
            value => match value.text(item.arena) {
                Some(text) => Ok(parse_int(text, 10).map_or(Val::Nil, Val::Int)),
                None => Err(unsupported(&value)),
            },
        },
    },
    Function {
        name: "Double",
        params: &[param("target", DoubleLike)],
        prepare: plain,
        run: |call, item| Ok(double_like(call, 0, item)?.map_or(Val::Nil, Val::Double)),
    },
    Function {
        name: "String",
        params: &[param("target", TextLike)],
        prepare: plain,
        run: |call, item| match call.any(0, item)? {
            value @ (Val::Nil | Val::Text(_) | Val::Str(_)) => Ok(value),
            value => {
                let text = value.text_like(item.arena)?.map(std::borrow::Cow::into_owned);
                Ok(text.map_or(Val::Nil, Val::from))
            }
        },
    },
    Function {
        name: "IsBool",
        params: &[param("target", Bool)],
        prepare: plain,
        run: |call, item| is(call, item, |value| matches!(value, Val::Bool(_))),
    },
    Function {
        name: "IsDouble",
        params: &[param("target", Double)],
        prepare: plain,
        run: |call, item| is(call, item, |value| matches!(value, Val::Double(_))),
    },
    Function {
        name: "IsInt",
        params: &[param("target", Int)],
        prepare: plain,
        run: |call, item| is(call, item, |value| matches!(value, Val::Int(_))),
    },
    Function {
        name: "IsString",
        params: &[param("target", Text)],
        prepare: plain,
        run: |call, item| is(call, item, |value| matches!(value, Val::Text(_) | Val::Str(_))),
    },
    Function {
        name: "IsMap",
        params: &[param("target", Map)],
        prepare: plain,
        run: |call, item| is(call, item, |value| matches!(value, Val::Map(_))),
    },
    Function {
        name: "IsList",
        params: &[param("target", Any)],
        prepare: plain,
        run: |call, item| {
            is(call, item, |value| match value {
                Val::List(_) => true,
                Val::Parts(name, _) => name.ends_with("Slice"),
                _ => false,
            })
        },
    },
    Function {
        name: "IsEmpty",
        params: &[param("target", Any)],
        prepare: plain,
        run: |call, item| {
            let value = call.any(0, item)?;
            Ok(Val::Bool(match &value {
                Val::Nil => true,
                Val::Bool(value) => !value,
                Val::Int(value) | Val::Duration(value) => *value == 0,
                Val::Double(value) => *value == 0.0,
                Val::Map(map) => map.is_empty(),
                Val::List(list) => list.is_empty(),
                Val::Parts(_, count) => *count == 0,
                Val::TraceId(id) | Val::ProfileId(id) => *id == [0; 16],
                Val::SpanId(id) => *id == [0; 8],
                Val::Time(_) => false,
                value => {
                    let text = value.text(item.arena).or_else(|| value.byte_str(item.arena));
                    text.is_none_or(<[u8]>::is_empty)
                }
            }))
        },
    },
    Function {
        name: "Len",
        params: &[param("target", Any)],
        prepare: plain,
        run: |call, item| {
            let value = call.any(0, item)?;
            let len = match &value {
                Val::Map(map) => map.len(),
                Val::List(list) => list.len(),
                Val::Parts(name, count) if name.ends_with("Slice") => *count,
                value => match value.text(item.arena).or_else(|| value.byte_str(item.arena)) {
                    Some(text) => text.len(),
                    None => {
                        let what = format!(
                            "Len: unsupported target type {}: a string, a list or a map is expected",
                            value.type_name()
                        );
                        return Err(what.into());
                    }
                },
            };
            Ok(Val::Int(len as i64))
        },
    },
    Function {
        name: "Coalesce",
        params: &[param("values", Anys)],
        prepare: |args| match &args[0] {
            Some(Arg::Many(values)) if values.is_empty() => Err((0, "Coalesce needs at least one value".to_owned())),
            _ => Ok(Prepared::Nothing),
        },
        run: |call, item| {
            for ex in call.many(0) {
                let value = ex.val(item)?;
                if !matches!(value, Val::Nil) {
                    return Ok(value);
                }
            }
            Ok(Val::Nil)
        },
    },
    Function {
        name: "Log",
        params: &[param("target", DoubleLike)],
        prepare: plain,
        run: |call, item| match double_like(call, 0, item)? {
            Some(value) if value > 0.0 || value.is_nan() => Ok(Val::Double(value.ln())),
            Some(value) => Err(format!("invalid input: expected number greater than zero but got {value}").into()),
            None => Err("invalid input: <nil>".into()),
        },
    },
    Function {
        name: "ParseInt",
        params: &[param("target", Text), param("base", Int)],
        prepare: plain,
        run: |call, item| {
            let value = call.text(0, item)?;
            let text = value.text(item.arena).unwrap_or_default().to_vec();
            if text.is_empty() {
                return Err("invalid target value for ParseInt function, target cannot be empty".into());
            }
            let base = call.int(1, item)?;
            if base < 0 {
                let what = format!("invalid base value: {base} for ParseInt function, base cannot be negative");
                return Err(what.into());
            }
            let base = u32::try_from(base).ok().filter(|base| *base == 0 || (2..=36).contains(base));
            let Some(base) = base else { return Err("strconv.ParseInt: invalid base".into()) };
            parse_int(&text, base).map(Val::Int).map_err(|_| invalid("ParseInt", &text))
        },
    },
    Function {
        name: "Hex",
        params: &[param("target", BytesLike)],
        prepare: plain,
        run: |call, item| Ok(Val::from(hex(&bytes_like(call, 0, item)?.unwrap_or_default()))),
    },
    Function {
        name: "TraceID",
        params: &[param("target", BytesLike)],
        prepare: known_id::<16>,
        run: |call, item| id::<16>(call, item).map(Val::TraceId),
    },
    Function {
        name: "SpanID",
        params: &[param("target", BytesLike)],
        prepare: known_id::<8>,
        run: |call, item| id::<8>(call, item).map(Val::SpanId),
    },
    Function {
        name: "ProfileID",
        params: &[param("target", BytesLike)],
        prepare: known_id::<16>,
        run: |call, item| id::<16>(call, item).map(Val::ProfileId),
    },
    Function {
        name: "Keys",
        params: &[param("target", Map)],
        prepare: plain,
        run: |call, item| {
            let map = call.map(0, item)?;
            let keys: Vec<Value> = item.arena.pairs(map).iter().map(|pair| Value::Str(pair.key)).collect();
            Ok(Val::List(item.arena.list(&keys)))
        },
    },
    Function {
        name: "Values",
        params: &[param("target", Map)],
        prepare: plain,
        run: |call, item| {
            let map = call.map(0, item)?;
            let values: Vec<Value> = item.arena.pairs(map).iter().map(|pair| pair.value).collect();
            Ok(Val::List(item.arena.list(&values)))
        },
    },
];

/// A truth value as Go reads it.
pub(crate) fn parse_bool(text: &[u8]) -> Option<bool> {
    match text {
        b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True" => Some(true),
        b"0" | b"f" | b"F" | b"false" | b"FALSE" | b"False" => Some(false),
        _ => None,
    }
}

fn is<'p>(call: &'p Call, item: &mut Item<'_>, holds: fn(&Val<'_>) -> bool) -> Got<'p> {
    Ok(Val::Bool(holds(&call.any(0, item)?)))
}

fn invalid(function: &str, text: &[u8]) -> EvalError {
    EvalError::new(format!("strconv.{function}: parsing {:?}: invalid syntax", String::from_utf8_lossy(text)))
}

fn unsupported(value: &Val<'_>) -> EvalError {
    EvalError::new(format!("unsupported type: {}", value.type_name()))
}

/// A number without its fraction, as the processors that Go mostly runs on cut it.
pub(super) fn to_int(value: f64) -> i64 {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if (-LIMIT..LIMIT).contains(&value) { value as i64 } else { i64::MIN }
}

/// Anything that can be read as a number.
pub(super) fn double_like(call: &Call, at: usize, item: &mut Item<'_>) -> Result<Option<f64>, EvalError> {
    match call.any(at, item)? {
        Val::Nil => Ok(None),
        Val::Double(value) => Ok(Some(value)),
        Val::Int(value) => Ok(Some(value as f64)),
        Val::Bool(value) => Ok(Some(f64::from(u8::from(value)))),
        value => match value.text(item.arena) {
            Some(text) => parse_float(text).map(Some).map_err(|_| invalid("ParseFloat", text)),
            None => Err(unsupported(&value)),
        },
    }
}

/// Anything that can be read as bytes: numbers are written with their highest byte first.
fn bytes_like(call: &Call, at: usize, item: &mut Item<'_>) -> Result<Option<Vec<u8>>, EvalError> {
    let value = call.any(at, item)?;
    Ok(match &value {
        Val::Nil => None,
        Val::Int(value) => Some(value.to_be_bytes().to_vec()),
        Val::Double(value) => Some(value.to_be_bytes().to_vec()),
        Val::Bool(value) => Some(vec![u8::from(*value)]),
        other => {
            let bytes = other.text(item.arena).or_else(|| other.byte_str(item.arena));
            Some(bytes.map(<[u8]>::to_vec).ok_or_else(|| unsupported(other))?)
        }
    })
}

fn read_id<const N: usize>(bytes: &[u8]) -> Result<[u8; N], String> {
    if let Ok(id) = <[u8; N]>::try_from(bytes) {
        return Ok(id);
    }
    if bytes.len() != 2 * N {
        return Err(format!(
            "could not decode ID: invalid length: expected {N} or {} bytes, got {}",
            2 * N,
            bytes.len()
        ));
    }
    let id = unhex(bytes).and_then(|id| id.try_into().ok());
    id.ok_or_else(|| "could not decode ID: invalid hex".to_owned())
}

fn known_id<const N: usize>(args: &[Option<Arg>]) -> Result<Prepared, Refused> {
    let bytes: &[u8] = match &args[0] {
        Some(Arg::One(Ex::Const(Const::Text(bytes) | Const::Bytes(bytes)))) => bytes,
        Some(Arg::One(Ex::Const(Const::Nil))) => b"",
        _ => return Ok(Prepared::Nothing),
    };
    read_id::<N>(bytes).map(|_| Prepared::Nothing).map_err(|what| (0, what))
}

fn id<const N: usize>(call: &Call, item: &mut Item<'_>) -> Result<[u8; N], EvalError> {
    let bytes = bytes_like(call, 0, item)?.unwrap_or_default();
    read_id(&bytes).map_err(|what| EvalError::new(format!("{}: {what}", call.function.name)))
}
