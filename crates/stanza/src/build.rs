//! Reading what a configuration says of operators.

use std::cell::RefCell;
use std::fmt;
use std::time::Duration;

use crate::expr::{Program, Template};
use crate::field::Field;
use crate::operators::{self, Kind};
use crate::pipeline::{Node, OnError};
use crate::time::{TimeConfig, TimeReader};
use crate::value::{Map, Text, Value};

/// Why operators are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildError {
    /// Which of the operators, from 0 on; nothing where it is about all of them.
    pub operator: Option<usize>,
    /// What the operator is called, or else its type.
    pub name: String,
    /// What is wrong, in the reference's words where it has any.
    pub message: String,
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.operator {
            Some(at) if self.name.is_empty() => write!(f, "operator {}: {}", at + 1, self.message),
            Some(at) => write!(f, "operator {} ({}): {}", at + 1, self.name, self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for BuildError {}

pub(crate) type Built<T> = Result<T, String>;

/// What an operator is given, by names.
pub(crate) struct Fields<'a> {
    map: &'a Map,
    used: RefCell<Vec<&'static str>>,
}

fn mismatch(name: &str, wanted: &str, got: &Value) -> String {
    format!("'{name}' expected type '{wanted}', got unconvertible type '{}'", got.go_type())
}

impl<'a> Fields<'a> {
    pub(crate) fn of(map: &'a Map) -> Self {
        Fields { map, used: RefCell::default() }
    }

    /// What is given and not known.
    pub(crate) fn unknown(&self) -> Vec<String> {
        let used = self.used.borrow();
        let keys = self.map.iter().map(|(key, _)| key.lossy().into_owned());
        keys.filter(|key| !used.contains(&&**key)).collect()
    }

    pub(crate) fn get(&self, name: &'static str) -> Option<&'a Value> {
        self.used.borrow_mut().push(name);
        self.map.get(name.as_bytes()).filter(|value| **value != Value::Null)
    }

    pub(crate) fn text(&self, name: &'static str) -> Built<Option<String>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Str(text)) => Ok(Some(text.lossy().into_owned())),
            Some(other) => Err(mismatch(name, "string", other)),
        }
    }

    pub(crate) fn text_or(&self, name: &'static str, default: &str) -> Built<String> {
        Ok(self.text(name)?.unwrap_or_else(|| default.to_owned()))
    }

    pub(crate) fn bool_or(&self, name: &'static str, default: bool) -> Built<bool> {
        match self.get(name) {
            None => Ok(default),
            Some(Value::Bool(value)) => Ok(*value),
            Some(other) => Err(mismatch(name, "bool", other)),
        }
    }

    pub(crate) fn int_or(&self, name: &'static str, default: i64) -> Built<i64> {
        match self.get(name) {
            None => Ok(default),
            Some(Value::Int(value)) => Ok(*value),
            Some(Value::Float(value)) => Ok(*value as i64),
            Some(other) => Err(mismatch(name, "int", other)),
        }
    }

    pub(crate) fn float_or(&self, name: &'static str, default: f64) -> Built<f64> {
        match self.get(name) {
            None => Ok(default),
            Some(Value::Int(value)) => Ok(*value as f64),
            Some(Value::Float(value)) => Ok(*value),
            Some(other) => Err(mismatch(name, "float64", other)),
        }
    }

    pub(crate) fn duration_or(&self, name: &'static str, default: Duration) -> Built<Duration> {
        let ns = match self.get(name) {
            None => return Ok(default),
            Some(Value::Int(ns)) => *ns,
            Some(Value::Str(text)) => {
                let text = text.lossy();
                crate::expr::duration(&text).map_err(|error| format!("'{name}' {error}"))?
            }
            Some(other) => return Err(mismatch(name, "time.Duration", other)),
        };
        u64::try_from(ns).map(Duration::from_nanos).map_err(|_| format!("'{name}' must not be negative"))
    }

    /// A number of bytes, maybe with a unit: `1MiB`.
    pub(crate) fn bytes_or(&self, name: &'static str, default: i64) -> Built<i64> {
        match self.get(name) {
            None => Ok(default),
            Some(Value::Int(bytes)) => Ok(*bytes),
            Some(Value::Float(bytes)) => Ok(*bytes as i64),
            Some(Value::Str(text)) => {
                let text = text.lossy();
                bytes(&text).ok_or_else(|| format!("'{name}' invalid byte size '{text}'"))
            }
            Some(other) => Err(mismatch(name, "helper.ByteSize", other)),
        }
    }

    /// Texts; one stands for a list of it.
    pub(crate) fn texts(&self, name: &'static str) -> Built<Vec<String>> {
        match self.get(name) {
            None => Ok(Vec::new()),
            Some(Value::Str(text)) => Ok(vec![text.lossy().into_owned()]),
            Some(Value::List(list)) => list
                .iter()
                .map(|value| match value {
                    Value::Str(text) => Ok(text.lossy().into_owned()),
                    other => Err(mismatch(name, "string", other)),
                })
                .collect(),
            Some(other) => Err(mismatch(name, "[]string", other)),
        }
    }

    fn read_field(name: &str, value: &Value, rootable: bool) -> Built<Field> {
        match value {
            Value::Str(text) => Field::parse(&text.lossy(), rootable).map_err(|error| format!("'{name}' {error}")),
            Value::List(_) => Err(format!("'{name}' expected a map or struct, got \"slice\"")),
            other => Err(format!("'{name}' expected a map or struct, got \"{}\"", other.go_type())),
        }
    }

    pub(crate) fn field(&self, name: &'static str) -> Built<Option<Field>> {
        self.get(name).map(|value| Self::read_field(name, value, false)).transpose()
    }

    pub(crate) fn field_or_whole(&self, name: &'static str) -> Built<Option<Field>> {
        self.get(name).map(|value| Self::read_field(name, value, true)).transpose()
    }

    pub(crate) fn fields(&self, name: &'static str) -> Built<Vec<Field>> {
        match self.get(name) {
            None => Ok(Vec::new()),
            Some(Value::List(list)) => list.iter().map(|value| Self::read_field(name, value, false)).collect(),
            Some(other) => Err(format!("'{name}' source data must be an array or slice, got {}", other.go_type())),
        }
    }

    /// What is given within.
    pub(crate) fn within(&self, name: &'static str) -> Built<Option<Fields<'a>>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Map(map)) => Ok(Some(Fields::of(map))),
            Some(other) => Err(format!("'{name}' expected a map or struct, got \"{}\"", other.go_type())),
        }
    }

    pub(crate) fn map(&self, name: &'static str) -> Built<Option<&'a Map>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Map(map)) => Ok(Some(map)),
            Some(other) => Err(format!("'{name}' expected a map, got '{}'", other.go_type())),
        }
    }

    /// Texts with programs in them, by names.
    pub(crate) fn templates(&self, name: &'static str) -> Built<Vec<(Text, Template)>> {
        let Some(map) = self.map(name)? else { return Ok(Vec::new()) };
        map.iter()
            .map(|(key, value)| match value {
                Value::Str(text) => {
                    let template = Template::new(&text.lossy());
                    Ok((key.clone(), template.map_err(|error| format!("compile embedded expression: {error}"))?))
                }
                other => Err(mismatch(&format!("{name}[{}]", key.lossy()), "string", other)),
            })
            .collect()
    }

    /// A layout of times, with the zone.
    pub(crate) fn time(&self) -> Built<(Field, TimeReader)> {
        let Some(from) = self.field("parse_from")? else {
            return Err("missing required parameter 'parse_from'".to_owned());
        };
        let layout_type = self.text_or("layout_type", "")?;
        let zone_locations = match self.map("time_zone_locations")? {
            None => Vec::new(),
            Some(map) => {
                let pairs = map.iter().map(|(name, zone)| match zone {
                    Value::Str(zone) => Ok((name.clone(), zone.lossy().into_owned())),
                    other => Err(mismatch("time_zone_locations", "string", other)),
                });
                pairs.collect::<Built<_>>()?
            }
        };
        let config = TimeConfig {
            layout: self.text_or("layout", "")?,
            layout_type: if layout_type.is_empty() { "strptime".to_owned() } else { layout_type },
            location: self.text_or("location", "")?,
            zone_locations,
        };
        Ok((from, TimeReader::new(&config)?))
    }
}

/// A number of bytes: `10`, `1.5 kB`, `1MiB`.
fn bytes(text: &str) -> Option<i64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    if !number.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let number: f64 = number.parse().ok()?;
    let unit = unit.trim_start().to_ascii_lowercase();
    let factor: f64 = match &*unit {
        "" => 1.0,
        _ => {
            let base: f64 = if unit.ends_with("ib") { 1024.0 } else { 1000.0 };
            let scale = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b'))?;
            let power = ["k", "m", "g", "t", "p"].iter().position(|known| *known == scale)? as i32 + 1;
            base.powi(power)
        }
    };
    Some((number * factor) as i64)
}

/// A condition.
pub(crate) fn condition(text: &str) -> Built<Program> {
    Program::condition(text).map_err(|error| format!("failed to compile expression '{text}': {error}"))
}

/// An operator as it was built, with the names of those behind it.
pub(crate) struct Operator {
    pub(crate) node: Node,
    pub(crate) outputs: Vec<String>,
    /// Whether what is named is to be known by this name and no other.
    pub(crate) unknown: Vec<String>,
}

/// Builds an operator.
pub(crate) fn operator(at: usize, config: &Value) -> Result<Operator, BuildError> {
    let failed = |name: &str, message: String| BuildError { operator: Some(at), name: name.to_owned(), message };
    let Value::Map(map) = config else {
        return Err(failed("", format!("expected a map, got '{}'", config.go_type())));
    };
    let fields = Fields::of(map);
    let kind = match fields.get("type") {
        None => return Err(failed("", "missing required field 'type'".to_owned())),
        Some(Value::Str(kind)) => kind.lossy().into_owned(),
        Some(other) => return Err(failed("", format!("non-string type {} for field 'type'", other.go_type()))),
    };
    let build = || -> Built<Operator> {
        let id = fields.text_or("id", "")?;
        let outputs = fields.texts("output")?;
        let on_error = match &*fields.text_or("on_error", "send")? {
            "send" => OnError::Send,
            "send_quiet" => OnError::SendQuiet,
            "drop" => OnError::Drop,
            "drop_quiet" => OnError::DropQuiet,
            other => {
                return Err(format!("operator config has an invalid `on_error` field.: {{\"on_error\":{other:?}}}"));
            }
        };
        let when = match fields.text_or("if", "")? {
            text if text.is_empty() => None,
            text => Some(condition(&text)?),
        };
        let own = Kind::build(&kind, &fields)?;
        let Some(own) = own else { return Err(format!("unsupported type '{kind}'")) };
        let id = if id.is_empty() { kind.clone() } else { id };
        let node = Node { id, kind: kind.clone(), on_error, when, own, outputs: Vec::new(), dropped: [0; 2] };
        Ok(Operator { node, outputs, unknown: fields.unknown() })
    };
    build().map_err(|message| failed(&kind, message))
}

/// What an operator does not propagate, or not in every case, in the reference's words.
pub(crate) fn not_for_headers(kind: &str) -> Option<String> {
    match kind {
        "filter" => Some("operator of type filter is not allowed in `metadata_operators`".to_owned()),
        kind if operators::ENDS.contains(&kind) => {
            Some(format!("operator '{kind}' in `metadata_operators` does not propagate entries"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_units() {
        for (text, expected) in [
            ("10", Some(10)),
            ("1kb", Some(1_000)),
            ("1.5 KiB", Some(1_536)),
            ("2MiB", Some(2 << 20)),
            ("1b", None),
            ("", None),
            ("1.1.1", None),
            ("-1", None),
            ("1 zb", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }
}
