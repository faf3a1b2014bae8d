//! What operators make of values.

use std::cmp::Ordering;

use corten_golang::time::Time;
use corten_signal::regex::GoRegex;

use super::eval::{Val, matches};
use super::parse::Binary;
use crate::value::{Text, Value};

type Made<'a> = Result<Val<'a>, String>;

pub(super) fn binary<'a>(binary: Binary, left: &Val<'a>, right: &Val<'a>) -> Made<'a> {
    Ok(match binary {
        Binary::Equal => equal(left, right).into(),
        Binary::NotEqual => (!equal(left, right)).into(),
        Binary::Less => compared(binary, left, right)?.is_some_and(Ordering::is_lt).into(),
        Binary::More => compared(binary, left, right)?.is_some_and(Ordering::is_gt).into(),
        Binary::LessOrEqual => compared(binary, left, right)?.is_some_and(Ordering::is_le).into(),
        Binary::MoreOrEqual => compared(binary, left, right)?.is_some_and(Ordering::is_ge).into(),
        Binary::In => is_in(left, right)?.into(),
        Binary::Matches if left.is_null() || right.is_null() => false.into(),
        Binary::Matches => {
            let regex = GoRegex::new(&right.text()?.lossy()).map_err(|error| error.to_string())?;
            matches(left, &regex)?.into()
        }
        Binary::Contains | Binary::StartsWith | Binary::EndsWith => {
            if left.is_null() || right.is_null() {
                return Ok(false.into());
            }
            let (left, right) = (left.text()?, right.text()?);
            match binary {
                Binary::Contains => (memchr::memmem::find(left, right).is_some()).into(),
                Binary::StartsWith => left.starts_with(right).into(),
                _ => left.ends_with(right).into(),
            }
        }
        Binary::Range => {
            let (from, to) = (left.whole()?, right.whole()?);
            Val::Own(Value::List((from..=to).map(Value::Int).collect()))
        }
        Binary::Add | Binary::Subtract | Binary::Multiply | Binary::Divide | Binary::Modulo => {
            arithmetic(binary, left, right)?
        }
        Binary::Power => left.number()?.powf(right.number()?).into(),
    })
}

fn undefined(binary: Binary, left: &Val<'_>, right: &Val<'_>) -> String {
    format!("invalid operation: {} {} {}", left.go_type(), binary.sign(), right.go_type())
}

fn arithmetic<'a>(binary: Binary, left: &Val<'a>, right: &Val<'a>) -> Made<'a> {
    match (left, right) {
        (Val::Duration(a), Val::Duration(b)) => {
            return Ok(match binary {
                Binary::Add => Val::Duration(a.wrapping_add(*b)),
                Binary::Subtract => Val::Duration(a.wrapping_sub(*b)),
                Binary::Multiply => Val::Duration(a.wrapping_mul(*b)),
                Binary::Divide => (*a as f64 / *b as f64).into(),
                _ => return Err(undefined(binary, left, right)),
            });
        }
        (Val::Duration(ns), number) | (number, Val::Duration(ns)) if binary == Binary::Multiply => {
            return Ok(match number.get() {
                Value::Int(number) => Val::Duration(number.wrapping_mul(*ns)),
                _ => (number.number()? * *ns as f64).into(),
            });
        }
        (Val::Duration(ns), number) if binary == Binary::Divide => {
            return Ok((*ns as f64 / number.number()?).into());
        }
        (time, Val::Duration(ns)) | (Val::Duration(ns), time) if !matches!(time.get(), Value::Null) => {
            return match (binary, time.get()) {
                (Binary::Add, Value::Time(time)) => Ok(Val::Own(Value::Time(moved(time, *ns)))),
                (Binary::Subtract, Value::Time(time)) if matches!(right, Val::Duration(_)) => {
                    Ok(Val::Own(Value::Time(moved(time, ns.wrapping_neg()))))
                }
                _ => Err(undefined(binary, left, right)),
            };
        }
        _ => {}
    }
    Ok(match (binary, left.get(), right.get()) {
        (Binary::Divide, Value::Int(_) | Value::Float(_), Value::Int(_) | Value::Float(_)) => {
            (left.number()? / right.number()?).into()
        }
        (Binary::Modulo, Value::Int(_), Value::Int(0)) => {
            return Err("runtime error: integer divide by zero".to_owned());
        }
        (_, Value::Int(a), Value::Int(b)) => match binary {
            Binary::Add => a.wrapping_add(*b),
            Binary::Subtract => a.wrapping_sub(*b),
            Binary::Multiply => a.wrapping_mul(*b),
            _ => a.wrapping_rem(*b),
        }
        .into(),
        (
            Binary::Add | Binary::Subtract | Binary::Multiply,
            Value::Int(_) | Value::Float(_),
            Value::Int(_) | Value::Float(_),
        ) => {
            let (a, b) = (left.number()?, right.number()?);
            match binary {
                Binary::Add => a + b,
                Binary::Subtract => a - b,
                _ => a * b,
            }
            .into()
        }
        (Binary::Add, Value::Str(a), Value::Str(b)) => Text::from([&**a, &**b].concat()).into(),
        (Binary::Subtract, Value::Time(a), Value::Time(b)) => Val::Duration(between(a, b)),
        _ => return Err(undefined(binary, left, right)),
    })
}

fn moved(time: &Time, ns: i64) -> Time {
    let all = i64::from(time.nanoseconds) + ns.rem_euclid(1_000_000_000);
    let seconds = time.seconds.saturating_add(ns.div_euclid(1_000_000_000)).saturating_add(all / 1_000_000_000);
    Time { seconds, nanoseconds: (all % 1_000_000_000) as u32, ..*time }
}

/// How long after another a time is, in nanoseconds.
pub(super) fn between(a: &Time, b: &Time) -> i64 {
    let ns = (i128::from(a.seconds) - i128::from(b.seconds)) * 1_000_000_000
        + (i128::from(a.nanoseconds) - i128::from(b.nanoseconds));
    i64::try_from(ns).unwrap_or(if ns < 0 { i64::MIN } else { i64::MAX })
}

pub(super) fn order_of(a: &Time, b: &Time) -> Ordering {
    (a.seconds, a.nanoseconds).cmp(&(b.seconds, b.nanoseconds))
}

fn ordering(left: &Value, right: &Value) -> Option<Option<Ordering>> {
    Some(match (left, right) {
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Value::Int(a), Value::Float(b)) => (*a as f64).partial_cmp(b),
        (Value::Float(a), Value::Int(b)) => a.partial_cmp(&(*b as f64)),
        (Value::Float(a), Value::Float(b)) => a.partial_cmp(b),
        (Value::Str(a), Value::Str(b)) => Some(a.cmp(b)),
        (Value::Time(a), Value::Time(b)) => Some(order_of(a, b)),
        _ => return None,
    })
}

fn compared(binary: Binary, left: &Val<'_>, right: &Val<'_>) -> Result<Option<Ordering>, String> {
    if let (Val::Duration(a), Val::Duration(b)) = (left, right) {
        return Ok(Some(a.cmp(b)));
    }
    ordering(left.get(), right.get()).ok_or_else(|| undefined(binary, left, right))
}

fn equal(left: &Val<'_>, right: &Val<'_>) -> bool {
    match (left, right) {
        (Val::Duration(a), Val::Duration(b)) => a == b,
        (Val::Duration(_), _) | (_, Val::Duration(_)) => false,
        (left, right) => same(left.get(), right.get()),
    }
}

/// Whether two values are the same. Numbers are, whatever their types.
pub(super) fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Int(a), Value::Float(b)) | (Value::Float(b), Value::Int(a)) => *a as f64 == *b,
        (Value::Time(a), Value::Time(b)) => order_of(a, b).is_eq(),
        (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (a, b) => a == b,
    }
}

fn is_in(needle: &Val<'_>, hay: &Val<'_>) -> Result<bool, String> {
    match hay.get() {
        Value::Null if !matches!(hay, Val::Duration(_)) => Ok(false),
        Value::List(list) => Ok(list.iter().any(|value| same(value, needle.get()))),
        Value::Map(map) => match needle.get() {
            Value::Str(key) => Ok(map.get(key).is_some()),
            Value::Null => Ok(map.get(b"").is_some()),
            _ => Err(format!(
                "reflect.Value.MapIndex: value of type {} is not assignable to type string",
                needle.go_type()
            )),
        },
        _ => Err(format!("operator \"in\" not defined on {}", hay.go_type())),
    }
}

/// The place of an index: from the end where it is negative.
fn place(index: i64, len: usize) -> Option<usize> {
    let len = i64::try_from(len).unwrap_or(i64::MAX);
    let index = if index < 0 { len.checked_add(index)? } else { index };
    usize::try_from(index).ok().filter(|index| (*index as i64) < len)
}

/// A member of a value. What a map does not have is nil.
pub(super) fn member<'a>(of: Val<'a>, key: &Val<'_>) -> Made<'a> {
    let outside = |len: usize| {
        let index = key.whole().unwrap_or_default();
        let shown = if index < 0 { index.wrapping_add(len as i64) } else { index };
        format!("index out of range: {shown} (array length is {len})")
    };
    let none = |of: &Val<'_>| format!("cannot fetch {} from {}", super::go_text(key.get()), of.go_type());
    if matches!(of, Val::Duration(_)) {
        return Err(none(&of));
    }
    Ok(match of.get() {
        Value::Str(text) => {
            let at = place(key.whole()?, text.len()).ok_or_else(|| outside(text.len()))?;
            i64::from(text[at]).into()
        }
        Value::Bytes(bytes) => {
            let at = place(key.whole()?, bytes.len()).ok_or_else(|| outside(bytes.len()))?;
            i64::from(bytes[at]).into()
        }
        Value::List(list) => {
            let at = place(key.whole()?, list.len()).ok_or_else(|| outside(list.len()))?;
            match of {
                Val::Ref(Value::List(list)) => Val::Ref(&list[at]),
                Val::Own(Value::List(mut list)) => Val::Own(list.swap_remove(at)),
                _ => Val::NULL,
            }
        }
        Value::Map(_) => {
            let key: &[u8] = match key.get() {
                Value::Str(key) => key,
                Value::Null => b"",
                _ => {
                    return Err(format!(
                        "reflect.Value.MapIndex: value of type {} is not assignable to type string",
                        key.go_type()
                    ));
                }
            };
            match of {
                Val::Ref(Value::Map(map)) => map.get(key).map_or(Val::NULL, Val::Ref),
                Val::Own(Value::Map(mut map)) => map.remove(key).map_or(Val::NULL, Val::Own),
                _ => Val::NULL,
            }
        }
        _ => return Err(none(&of)),
    })
}

pub(super) fn slice<'a>(of: &Val<'_>, from: Option<i64>, to: Option<i64>) -> Made<'a> {
    let range = |len: usize| {
        let bound = |at: i64| {
            let at = if at < 0 { (len as i64).saturating_add(at) } else { at };
            usize::try_from(at).unwrap_or(0)
        };
        let to = to.map_or(len, bound).min(len);
        from.map_or(0, bound).min(to)..to
    };
    Ok(match of.get() {
        Value::Str(text) => text.part(range(text.len())).into(),
        Value::Bytes(bytes) => Val::Own(Value::Bytes(bytes.slice(range(bytes.len())))),
        Value::List(list) => Val::Own(Value::List(list[range(list.len())].to_vec())),
        _ => return Err(format!("cannot slice {}", from.map_or("<nil>".to_owned(), |from| from.to_string()))),
    })
}

pub(super) fn is_descending(order: &Text) -> Result<bool, String> {
    match &**order {
        b"asc" => Ok(false),
        b"desc" => Ok(true),
        _ => Err(format!("invalid order {}, expected asc or desc", order.lossy())),
    }
}

/// Sorts by keys. What cannot be compared stays in its order.
pub(super) fn sort<T>(items: &mut [T], key: impl Fn(&T) -> &Value, descending: bool) {
    // An order that holds for any values: by kind first, so that sorting cannot go wrong.
    let rank = |value: &Value| match value {
        Value::Int(_) | Value::Float(_) => 0,
        Value::Str(_) => 1,
        Value::Time(_) => 2,
        _ => 3,
    };
    items.sort_by(|a, b| {
        let (a, b) = (key(a), key(b));
        let order = match (a, b) {
            (Value::Float(a), Value::Float(b)) => a.total_cmp(b),
            (Value::Int(a), Value::Float(b)) => (*a as f64).total_cmp(b),
            (Value::Float(a), Value::Int(b)) => a.total_cmp(&(*b as f64)),
            _ => ordering(a, b).flatten().unwrap_or_else(|| rank(a).cmp(&rank(b))),
        };
        if descending { order.reverse() } else { order }
    });
}
