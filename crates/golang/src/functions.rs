//! The functions that templates may call, and the methods of their values.

mod builtin;
mod crypto;
mod custom;
mod dates;
mod decimal;
mod dicts;
mod encoding;
mod environment;
mod json;
mod lists;
mod math;
mod paths;
mod random;
mod reflect;
mod regexes;
pub(crate) mod semver;
mod strings;
mod urls;

pub use urls::{QueryPair, UrlParts, parse_query, parse_request_uri, parse_url};

use bytes::Bytes;

use crate::template::{Exec, Value};

/// The type of a parameter, in Go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    /// `interface {}`.
    Any,
    /// `reflect.Value`.
    Reflect,
    Text,
    Int,
    /// `uint32`, of which there are only literals.
    Uint32,
    Float,
    Bool,
    /// `map[string]interface {}`. A nil is an empty map.
    Dict,
    Time,
    Duration,
    Version,
}

impl Type {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Type::Any => "interface {}",
            Type::Reflect => "reflect.Value",
            Type::Text => "string",
            Type::Int => "int",
            Type::Uint32 => "uint32",
            Type::Float => "float64",
            Type::Bool => "bool",
            Type::Dict => "map[string]interface {}",
            Type::Time => "time.Time",
            Type::Duration => "time.Duration",
            Type::Version => "*semver.Version",
        }
    }

    pub(crate) fn can_be_nil(self) -> bool {
        matches!(self, Type::Any | Type::Reflect | Type::Dict | Type::Version)
    }
}

/// Functions that the executor calls in its own way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Special {
    And,
    Or,
}

/// The arguments have the types of the parameters, or are nil where a type allows that.
pub(crate) type Run = fn(&mut Exec<'_>, &[Value]) -> Answer;
pub(crate) type Answer = Result<Value, String>;

/// A function.
pub(crate) struct Function {
    pub(crate) name: &'static str,
    pub(crate) params: &'static [Type],
    /// The type of any number of further arguments.
    pub(crate) variadic: Option<Type>,
    pub(crate) special: Option<Special>,
    pub(crate) run: Run,
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// What a name stands for.
pub(crate) enum Found {
    Known(&'static Function),
    /// The reference has it.
    Unsupported,
    Unknown,
}

/// Looks for a function.
pub(crate) fn find(name: &str) -> Found {
    for table in TABLES {
        if let Ok(at) = table.binary_search_by(|function| function.name.cmp(name)) {
            return Found::Known(&table[at]);
        }
    }
    if UNSUPPORTED.binary_search(&name).is_ok() { Found::Unsupported } else { Found::Unknown }
}

/// The names of all functions, but those that ask the network.
#[cfg(test)]
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    TABLES.iter().flat_map(|table| table.iter()).map(|function| function.name).filter(|name| *name != "getHostByName")
}

/// Looks for a method of a value. Its first argument is the value, which is not among its parameters.
pub(crate) fn method(value: &Value, name: &str) -> Option<&'static Function> {
    let table = match value {
        Value::Time(_) => dates::TIME_METHODS,
        Value::Duration(_) => dates::DURATION_METHODS,
        Value::Month(_) | Value::Weekday(_) => dates::NAMED_METHODS,
        Value::Version(_) => semver::METHODS,
        _ => return None,
    };
    table.iter().find(|function| function.name == name)
}

/// Each sorted by name. Of two with one name the first counts.
const TABLES: &[&[Function]] = &[
    custom::FUNCTIONS,
    strings::FUNCTIONS,
    lists::FUNCTIONS,
    dicts::FUNCTIONS,
    math::FUNCTIONS,
    dates::FUNCTIONS,
    regexes::FUNCTIONS,
    encoding::FUNCTIONS,
    reflect::FUNCTIONS,
    paths::FUNCTIONS,
    urls::FUNCTIONS,
    crypto::FUNCTIONS,
    random::FUNCTIONS,
    environment::FUNCTIONS,
    semver::FUNCTIONS,
    builtin::FUNCTIONS,
];

/// What the reference has and this does not. Sorted.
const UNSUPPORTED: &[&str] = &[
    "buildCustomCert",
    "genCA",
    "genCAWithKey",
    "genPrivateKey",
    "genSelfSignedCert",
    "genSelfSignedCertWithKey",
    "genSignedCert",
    "genSignedCertWithKey",
];

const fn function(name: &'static str, params: &'static [Type], run: Run) -> Function {
    Function { name, params, variadic: None, special: None, run }
}

const fn variadic(name: &'static str, params: &'static [Type], more: Type, run: Run) -> Function {
    Function { name, params, variadic: Some(more), special: None, run }
}

/// A text among the arguments.
fn text(args: &[Value], index: usize) -> &Bytes {
    static EMPTY: Bytes = Bytes::new();
    match args.get(index) {
        Some(Value::Text(text)) => text,
        _ => &EMPTY,
    }
}

/// An integer among the arguments.
fn int(args: &[Value], index: usize) -> i64 {
    args.get(index).and_then(Value::as_int).unwrap_or(0)
}

/// An argument of any type; nil if it is missing.
fn any(args: &[Value], index: usize) -> &Value {
    args.get(index).unwrap_or(&Value::Nil)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted() {
        for table in TABLES {
            assert!(table.is_sorted_by(|a, b| a.name < b.name), "{table:?}");
        }
        assert!(UNSUPPORTED.is_sorted());
    }
}
