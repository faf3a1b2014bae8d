//! Values that a configuration gives.

use corten_config::value::{Data, Number, Value as Given};
use corten_otlp::{Arena, Pair, Value};

/// A value of a configuration as one of telemetry.
#[derive(Clone, Debug)]
pub(crate) struct Constant {
    pub(crate) arena: Arena,
    pub(crate) value: Value,
}

/// How deep a value may be.
const DEPTH_MAX: usize = 64;

impl Constant {
    /// Makes one.
    ///
    /// # Errors
    ///
    /// It is of a type that no attribute has.
    pub(crate) fn new(given: &Given) -> Result<Self, String> {
        let mut arena = Arena::default();
        let value = read(given, &mut arena, DEPTH_MAX)?;
        Ok(Constant { arena, value })
    }
}

fn read(given: &Given, arena: &mut Arena, depth: usize) -> Result<Value, String> {
    let Some(depth) = depth.checked_sub(1) else { return Err("the value is too deep".to_owned()) };
    Ok(match &given.data {
        Data::Null => Value::Empty,
        Data::Bool(value) => Value::Bool(*value),
        Data::Number(Number::Int(value)) => Value::Int(*value),
        Data::Number(Number::Uint(value)) => Value::Int(*value as i64),
        Data::Number(Number::Float(value)) => Value::Double(*value),
        Data::String(text) => arena.own_str(text),
        Data::Bytes(bytes) => Value::Bytes(arena.own(bytes)),
        Data::Array(_) => {
            let values: Result<Vec<Value>, String> = given.items().map(|item| read(&item, arena, depth)).collect();
            Value::List(arena.list(&values?))
        }
        Data::Object(_) => {
            let entries = given.entries();
            let mut pairs = Vec::with_capacity(entries.len());
            for (key, value) in &entries {
                pairs.push(Pair { key: arena.own(key.as_bytes()), value: read(value, arena, depth)? });
            }
            Value::Map(arena.map(&pairs))
        }
        Data::OptionalSecret(secret) if !secret.is_secret => arena.own_str(&secret.text),
        _ => return Err(format!("<Invalid value type {}>", given.describe())),
    })
}
