//! The functions of the namespace `array`.
//!
//! They pass elements of their arguments on as they are, with the marks that they carry.

use std::collections::HashMap;
use std::sync::Arc;

use super::{CallError, expected};
use crate::error::ValueError;
use crate::limits::ITEMS_MAX;
use crate::value::{Data, Object, Type, Value};

pub(super) fn concat(args: &[Value]) -> Result<Value, CallError> {
    for (index, value) in args.iter().enumerate() {
        if value.ty() != Type::Array {
            return Err(expected(index, Type::Array, value));
        }
    }
    if let [only] = args {
        return Ok(only.clone());
    }
    if args.iter().filter_map(Value::len).sum::<usize>() > ITEMS_MAX {
        return Err(too_many());
    }
    Ok(Value::array(args.iter().flat_map(Value::items).collect::<Vec<Value>>()))
}

/// The elements of an argument that is an array of objects or of capsules that can present themselves as ones.
fn objects(args: &[Value], index: usize) -> Result<Vec<(Value, Arc<Object>)>, CallError> {
    let value = &args[index];
    if value.ty() != Type::Array {
        return Err(expected(index, Type::Array, value));
    }
    let mut objects = Vec::with_capacity(value.len().unwrap_or(0));
    for (at, item) in value.items().enumerate() {
        let error = |found: &Value| ValueError::expected(Type::Object, found).in_index(at);
        let fields = crate::convert::to_object(&item).ok().filter(|_| !item.is_null());
        match fields {
            Some(fields) => objects.push((item, fields)),
            None => return Err(CallError::Argument { index, error: error(&item) }),
        }
    }
    Ok(objects)
}

pub(super) fn combine_maps(args: &[Value]) -> Result<Value, CallError> {
    if !(3..=4).contains(&args.len()) {
        return Err(CallError::Message(format!("combine_maps: expected 3 or 4 arguments, got {}", args.len())));
    }
    let (left, right) = (objects(args, 0)?, objects(args, 1)?);
    let keys = keys(&args[2])?;
    let keep_left = match args.get(3) {
        None => false,
        Some(value) => value.as_bool().ok_or_else(|| expected(3, Type::Bool, value))?,
    };

    // The objects on the right by what they have under the keys, so that the time grows with the sum of the lengths
    // and not with their product.
    let mut by_key: HashMap<Vec<JoinKey>, Vec<usize>> = HashMap::new();
    for (at, (_, fields)) in right.iter().enumerate() {
        if let Some(key) = join_key(fields, &keys).map_err(|error| element_error(1, at, error))? {
            by_key.entry(key).or_default().push(at);
        }
    }
    let mut matches = Vec::with_capacity(left.len());
    for (at, (_, fields)) in left.iter().enumerate() {
        let key = join_key(fields, &keys).map_err(|error| element_error(0, at, error))?;
        matches.push(key.and_then(|key| by_key.get(&key)));
    }
    // Counted before anything is made, because many that match many make very many.
    if matches.iter().map(|matches| matches.map_or(usize::from(keep_left), Vec::len)).sum::<usize>() > ITEMS_MAX {
        return Err(too_many());
    }
    let mut joined = Vec::new();
    for ((item, fields), matches) in left.iter().zip(matches) {
        if matches.is_none() && keep_left {
            joined.push(item.clone());
        }
        for index in matches.into_iter().flatten() {
            let mut union = Object::clone(fields);
            union.extend(right[*index].1.iter().map(|(name, value)| (Arc::clone(name), value.clone())));
            joined.push(Value::object(union));
        }
    }
    Ok(Value::array(joined))
}

fn element_error(index: usize, at: usize, error: ValueError) -> CallError {
    CallError::Argument { index, error: error.in_index(at) }
}

fn keys(value: &Value) -> Result<Vec<Arc<str>>, CallError> {
    if value.ty() != Type::Array {
        return Err(expected(2, Type::Array, value));
    }
    if value.is_empty() {
        let error = ValueError::new(value, "combine_maps: merge conditions must not be empty");
        return Err(CallError::Argument { index: 2, error });
    }
    let text = |(at, item): (usize, Value)| match &item.data {
        Data::String(text) => Ok(Arc::clone(text)),
        _ => Err(element_error(2, at, ValueError::expected(Type::String, &item))),
    };
    value.items().enumerate().map(text).collect()
}

/// What two objects must have in common to be joined. Values of different types or kinds of number never match.
#[derive(PartialEq, Eq, Hash)]
enum JoinKey {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    /// The bits of a float.
    Float(u64),
    Text(Arc<str>),
    Secret(Arc<str>),
    OptionalSecret(Arc<str>, bool),
    /// A capsule or a function, by its address.
    Identity(usize),
}

/// What an object has under the keys; nothing if it lacks one.
fn join_key(fields: &Object, keys: &[Arc<str>]) -> Result<Option<Vec<JoinKey>>, ValueError> {
    let mut values = Vec::with_capacity(keys.len());
    for key in keys {
        let Some(value) = fields.get(key) else { return Ok(None) };
        values.push(match &value.data {
            Data::Null => JoinKey::Null,
            Data::Bool(value) => JoinKey::Bool(*value),
            Data::Number(crate::number::Number::Int(value)) => JoinKey::Int(*value),
            Data::Number(crate::number::Number::Uint(value)) => JoinKey::Uint(*value),
            // Zero has two forms, which are equal.
            Data::Number(crate::number::Number::Float(value)) => JoinKey::Float((value + 0.0).to_bits()),
            Data::String(text) => JoinKey::Text(Arc::clone(text)),
            Data::Secret(text) => JoinKey::Secret(Arc::clone(text)),
            Data::OptionalSecret(secret) => JoinKey::OptionalSecret(Arc::clone(&secret.text), secret.is_secret),
            Data::Function(function) => JoinKey::Identity(std::ptr::from_ref(*function) as usize),
            Data::Capsule(capsule) => JoinKey::Identity(Arc::as_ptr(capsule).cast::<()>() as usize),
            Data::Bytes(_) | Data::Array(_) | Data::Object(_) => {
                let message = format!("combine_maps: cannot match values of type {}", value.ty());
                return Err(ValueError::new(value, message).in_field(key));
            }
        });
    }
    Ok(Some(values))
}

pub(super) fn group_by(args: &[Value]) -> Result<Value, CallError> {
    if args.len() != 3 {
        return Err(CallError::Message(format!("group_by: expected 3 arguments, got {}", args.len())));
    }
    if args[0].ty() != Type::Array {
        return Err(expected(0, Type::Array, &args[0]));
    }
    let Data::String(key) = &args[1].data else { return Err(expected(1, Type::String, &args[1])) };
    let drop_missing = args[2].as_bool().ok_or_else(|| expected(2, Type::Bool, &args[2]))?;

    // Groups stand in the order in which they first appear: the reference has them in no order at all.
    let mut order: Vec<(Value, Vec<Value>)> = Vec::new();
    let mut by_text: HashMap<Arc<str>, usize> = HashMap::new();
    for (at, (_, fields)) in objects(args, 0)?.into_iter().enumerate() {
        let value = match fields.get(key) {
            Some(value) => value.clone(),
            None if drop_missing => continue,
            None => Value::string(""),
        };
        let Data::String(text) = &value.data else {
            return Err(element_error(0, at, ValueError::expected(Type::String, &value).in_field(key)));
        };
        let index = *by_text.entry(Arc::clone(text)).or_insert_with(|| {
            order.push((value.clone(), Vec::new()));
            order.len() - 1
        });
        let (group, items) = &mut order[index];
        group.sensitive |= value.sensitive;
        items.push(Value::new(Data::Object(fields)));
    }
    let groups = order.into_iter().map(|(value, items)| {
        // A key named `items` gives way to the items, as in the reference.
        Value::object(Object::from([(Arc::clone(key), value), (Arc::from("items"), Value::array(items))]))
    });
    Ok(Value::array(groups.collect::<Vec<Value>>()))
}

fn too_many() -> CallError {
    CallError::Failed(format!("would make an array of more than {ITEMS_MAX} elements").into())
}
