//! Lists.

use std::cmp::Ordering;

use corten_otlp::{Arena, List as Values, Map, Pair, Value};

use super::Kind::{Any, ConstText, ConstTexts, List};
use super::{Function, Got, const_texts, expected, optional, param, plain};
use crate::error::EvalError;
use crate::item::Item;
use crate::program::Call;
use crate::value::{Comparison, Val, copy_value};

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "ContainsValue",
        params: &[param("target", List), param("item", Any)],
        prepare: plain,
        run: |call, item| {
            let list = call.list(0, item)?;
            let wanted = call.any(1, item)?;
            Ok(Val::Bool(position(item.arena, list, &wanted).is_some()))
        },
    },
    Function {
        name: "Index",
        params: &[param("target", Any), param("value", Any)],
        prepare: plain,
        run: |call, item| {
            let target = call.any(0, item)?;
            let wanted = call.any(1, item)?;
            let at = match &target {
                Val::List(list) => position(item.arena, *list, &wanted),
                other => match (other.text(item.arena), wanted.text(item.arena)) {
                    (Some(text), Some(wanted)) => find(text, wanted),
                    (Some(_), None) => {
                        return Err("invalid value type for Index function, value must be a string".into());
                    }
                    (None, _) => return expected("pcommon.Slice", other),
                },
            };
            Ok(Val::Int(at.map_or(-1, |at| at as i64)))
        },
    },
    Function {
        name: "Sort",
        params: &[param("target", Any), optional("order", ConstText)],
        prepare: |args| super::editors::one_of(args, 1, &["asc", "desc"]),
        run: sort,
    },
    Function {
        name: "SliceToMap",
        params: &[param("target", List), optional("key_path", ConstTexts), optional("value_path", ConstTexts)],
        prepare: plain,
        run: slice_to_map,
    },
];

/// Where a text stands in another one.
pub(super) fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    if wanted.is_empty() {
        return Some(0);
    }
    text.windows(wanted.len()).position(|window| window == wanted)
}

fn position(arena: &Arena, list: Values, wanted: &Val<'_>) -> Option<usize> {
    arena.values(list).iter().position(|value| Val::from(*value).compare(Comparison::Equal, wanted, arena))
}

fn sort<'p>(call: &'p Call, item: &mut Item<'_>) -> Got<'p> {
    let list = match call.any(0, item)? {
        Val::List(list) => list,
        other => {
            return Err(format!("sort with unsupported type: '{}'. Target is not a list", other.type_name()).into());
        }
    };
    let mut values = item.arena.values(list).to_vec();
    let Some(first) = values.first().copied() else { return Ok(Val::List(list)) };
    if values.iter().any(|value| matches!(value, Value::List(_) | Value::Map(_) | Value::Bytes(_))) {
        return Ok(Val::List(list));
    }
    let arena = &*item.arena;
    let is_text = |value: &Value| matches!(value, Value::Str(_) | Value::Bool(_) | Value::Empty);
    let descending = call.const_text(1) == Some(b"desc");
    let turned = |order: Ordering| if descending { order.reverse() } else { order };
    if values.iter().any(is_text) {
        let mut keyed: Vec<(Vec<u8>, Value)> = values
            .iter()
            .map(|value| {
                let mut text = Vec::new();
                arena.write_text(*value, &mut text);
                (text, *value)
            })
            .collect();
        keyed.sort_by(|(a, _), (b, _)| turned(a.cmp(b)));
        values = keyed.into_iter().map(|(_, value)| value).collect();
    } else if values.iter().all(|value| matches!(value, Value::Int(_))) && matches!(first, Value::Int(_)) {
        let int = |value: &Value| if let Value::Int(value) = value { *value } else { 0 };
        values.sort_by(|a, b| turned(int(a).cmp(&int(b))));
    } else {
        let double = |value: &Value| match value {
            Value::Int(value) => *value as f64,
            Value::Double(value) => *value,
            _ => 0.0,
        };
        // What is no number stands before all others.
        let order = |a: f64, b: f64| a.partial_cmp(&b).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()));
        values.sort_by(|a, b| turned(order(double(a), double(b))));
    }
    Ok(Val::List(item.arena.list(&values)))
}

fn slice_to_map<'p>(call: &'p Call, item: &mut Item<'_>) -> Got<'p> {
    let list = call.list(0, item)?;
    let key_path = const_texts(&call.args, 1);
    let value_path = const_texts(&call.args, 2);
    let arena = &mut *item.arena;
    let mut pairs: Vec<Pair> = Vec::with_capacity(list.len());
    let mut places = std::collections::HashMap::new();
    for at in 0..list.len() {
        let element = arena.values(list)[at];
        let fields = match element {
            Value::Map(map) => Some(map),
            _ => None,
        };
        let within = |path: &[&[u8]], arena: &Arena| {
            let not_a_map = "slice elements must be maps when using `key_path` or `value_path`";
            extract(arena, fields.ok_or(not_a_map)?, path)
        };
        let key = match &key_path {
            None => arena.own(at.to_string().as_bytes()),
            Some(path) => match within(path, arena)? {
                Value::Str(text) => text,
                _ => return Err(format!("element {at}: extracted key attribute is not of type string").into()),
            },
        };
        let value = match &value_path {
            None => element,
            Some(path) => within(path, arena)?,
        };
        let value = copy_value(arena, value);
        let place = *places.entry(arena.bytes(key).to_vec()).or_insert(pairs.len());
        match pairs.get_mut(place) {
            Some(pair) => pair.value = value,
            None => pairs.push(Pair { key, value }),
        }
    }
    Ok(Val::Map(arena.map(&pairs)))
}

fn extract(arena: &Arena, map: Map, path: &[&[u8]]) -> Result<Value, EvalError> {
    let Some((first, rest)) = path.split_first() else { return Err("must provide at least one path item".into()) };
    let missing = "provided object does not contain the path";
    let value = arena.get(map, first).ok_or(missing)?;
    match (rest, value) {
        ([], value) => Ok(value),
        (rest, Value::Map(map)) => extract(arena, map, rest),
        _ => Err(missing.into()),
    }
}
