//! Maps.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;

use super::Type::{Any, Dict, Text};
use super::lists::is_empty;
use super::{Answer, Function, Run, Type, any, function, text, variadic};
use crate::template::{Dict as Map, Exec, ListKind, NESTING_MAX, Value, too_deep};

const KEYED: &[Type] = &[Dict, Text];

pub(super) const FUNCTIONS: &[Function] = &[
    function("deepCopy", &[Any], COPY),
    variadic("dict", &[], Any, |exec, args| {
        let mut map = BTreeMap::new();
        for pair in args.chunks(2) {
            map.insert(pair[0].print()?, pair.get(1).cloned().unwrap_or(Value::from("")));
        }
        Ok(exec.dict(map))
    }),
    variadic("dig", &[], Any, dig),
    function("get", KEYED, |_, args| Ok(field(any(args, 0), text(args, 1)).unwrap_or(Value::from("")))),
    function("hasKey", KEYED, |_, args| Ok(Value::Bool(field(any(args, 0), text(args, 1)).is_some()))),
    variadic("keys", &[], Dict, |exec, args| {
        let mut keys = Vec::new();
        for dict in args {
            keys.extend(entries(dict).into_keys().map(Value::Text));
        }
        exec.charge(keys.len() * 32)?;
        exec.list(ListKind::Text, keys)
    }),
    variadic("merge", &[Dict], Dict, |exec, args| merged(exec, args, false)),
    variadic("mergeOverwrite", &[Dict], Dict, |exec, args| merged(exec, args, true)),
    function("mustDeepCopy", &[Any], COPY),
    variadic("mustMerge", &[Dict], Dict, |exec, args| merged(exec, args, false)),
    variadic("mustMergeOverwrite", &[Dict], Dict, |exec, args| merged(exec, args, true)),
    variadic("omit", &[Dict], Text, |exec, args| {
        let mut map = entries(any(args, 0));
        for index in 1..args.len() {
            map.remove(text(args, index));
        }
        exec.charge(map.len() * 64)?;
        Ok(exec.dict(map))
    }),
    variadic("pick", &[Dict], Text, |exec, args| {
        let found = (1..args.len()).filter_map(|index| {
            let key = text(args, index);
            Some((key.clone(), field(any(args, 0), key)?))
        });
        let map = found.collect();
        Ok(exec.dict(map))
    }),
    variadic("pluck", &[Text], Dict, |exec, args| {
        let found = args[1..].iter().filter_map(|dict| field(dict, text(args, 0))).collect();
        exec.list(ListKind::Any, found)
    }),
    function("set", &[Dict, Text, Any], |_, args| match any(args, 0) {
        Value::Dict(dict) => {
            dict.map.borrow_mut().insert(text(args, 1).clone(), any(args, 2).clone());
            Ok(any(args, 0).clone())
        }
        _ => Err("assignment to entry in nil map".to_owned()),
    }),
    function("unset", KEYED, |exec, args| match any(args, 0) {
        Value::Dict(dict) => {
            dict.map.borrow_mut().remove(text(args, 1));
            Ok(any(args, 0).clone())
        }
        _ => Ok(exec.dict(BTreeMap::new())),
    }),
    function("values", &[Dict], |exec, args| {
        let values: Vec<Value> = entries(any(args, 0)).into_values().collect();
        exec.charge(values.len() * 16)?;
        exec.list(ListKind::Any, values)
    }),
];

const COPY: Run = |exec, args| match any(args, 0) {
    Value::Nil => Err("reflect: call of reflect.Value.Type on zero Value".to_owned()),
    value => deep_copy(exec, value, 0),
};

fn field(dict: &Value, key: &[u8]) -> Option<Value> {
    match dict {
        Value::Dict(dict) => dict.map.borrow().get(key).cloned(),
        _ => None,
    }
}

/// A copy of the fields; none of a nil map.
fn entries(dict: &Value) -> BTreeMap<Bytes, Value> {
    match dict {
        Value::Dict(dict) => dict.map.borrow().clone(),
        _ => BTreeMap::new(),
    }
}

fn dig(_: &mut Exec<'_>, args: &[Value]) -> Answer {
    let [keys @ .., default, dict] = args else { return Err("dig needs at least three arguments".to_owned()) };
    if keys.is_empty() {
        return Err("dig needs at least three arguments".to_owned());
    }
    let wrong = |value: &Value, wanted: &str| {
        format!("interface conversion: interface {{}} is {}, not {wanted}", value.type_name())
    };
    let mut value = dict.clone();
    let names = keys.iter().map(|key| match key {
        Value::Text(name) => Ok(name),
        other => Err(wrong(other, "string")),
    });
    let names = names.collect::<Result<Vec<_>, _>>()?;
    for name in names {
        value = match &value {
            Value::Dict(dict) if !dict.texts => match dict.map.borrow().get(name) {
                Some(inner) => inner.clone(),
                None => return Ok(default.clone()),
            },
            other => return Err(wrong(other, "map[string]interface {}")),
        };
    }
    Ok(value)
}

fn deep_copy(exec: &mut Exec<'_>, value: &Value, depth: usize) -> Answer {
    if depth > NESTING_MAX {
        return Err(too_deep());
    }
    exec.charge(value.size())?;
    match value {
        Value::List(list) if !list.is_nil => {
            let mut items = Vec::with_capacity(list.items.len());
            for item in &list.items {
                items.push(deep_copy(exec, item, depth + 1)?);
            }
            exec.list(list.kind, items)
        }
        Value::Dict(dict) => {
            let mut map = BTreeMap::new();
            for (name, value) in entries(value) {
                map.insert(name, deep_copy(exec, &value, depth + 1)?);
            }
            Ok(if dict.texts { exec.text_dict(map) } else { exec.dict(map) })
        }
        other => Ok(other.clone()),
    }
}

fn merged(exec: &mut Exec<'_>, args: &[Value], overwrite: bool) -> Answer {
    let target = match any(args, 0) {
        Value::Dict(_) => any(args, 0).clone(),
        _ => exec.dict(BTreeMap::new()),
    };
    if let Value::Dict(target) = &target {
        for source in &args[1..] {
            merge(exec, target, source, overwrite, 0)?;
        }
    }
    Ok(target)
}

/// Puts into a map what another has and it lacks, or has only empty; with `overwrite`, whatever the other has. Maps
/// within maps are merged.
fn merge(exec: &mut Exec<'_>, target: &Rc<Map>, source: &Value, overwrite: bool, depth: usize) -> Result<(), String> {
    if depth > NESTING_MAX {
        return Err(too_deep());
    }
    exec.charge(source.size())?;
    for (name, value) in entries(source) {
        if matches!(value, Value::Nil) {
            if overwrite {
                target.map.borrow_mut().insert(name, value);
            }
            continue;
        }
        let known = target.map.borrow().get(&name).cloned();
        if let (Some(Value::Dict(known)), Value::Dict(_)) = (&known, &value) {
            merge(exec, known, &value, overwrite, depth + 1)?;
        }
        let keeps = known.as_ref().is_some_and(|known| !is_empty(known));
        let both_maps = matches!((&known, &value), (Some(Value::Dict(_)), Value::Dict(_)));
        if keeps && (both_maps || !overwrite) {
            continue;
        }
        target.map.borrow_mut().insert(name, value);
    }
    Ok(())
}
