//! The standard library: the functions and constants that expressions may use.

mod array;
mod base64;
mod encoding;
mod general;
mod json;
mod jsonpath;
mod text;
mod yaml;

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, LazyLock};

use crate::error::ValueError;
pub use crate::schema::Stability;
use crate::unknown;
use crate::value::{Data, Object, Type, Value};

/// A function of the standard library.
pub struct Function {
    /// Its name with its namespace, `string.join`.
    pub name: &'static str,
    /// Its parameters and result, `string.join(list, separator) string`.
    pub signature: &'static str,
    /// What it does, in one or two sentences.
    pub doc: &'static str,
    /// How far it may be relied on.
    pub stability: Stability,
    /// How many arguments it takes.
    pub arity: Arity,
    /// What it does with its arguments, whose number has been checked.
    pub call: fn(&[Value]) -> Result<Value, CallError>,
}

/// How many arguments a function takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// Just as many.
    Exactly(usize),
    /// As many or more.
    AtLeast(usize),
    /// The function sees to it, and to the marks of what it passes on: it returns parts of its arguments as they are.
    Own,
}

/// Why a function has no result.
#[derive(Clone, Debug, PartialEq)]
pub enum CallError {
    /// An argument does not fit.
    Argument {
        /// Which one, from zero.
        index: usize,
        /// What is wrong with it.
        error: ValueError,
    },
    /// The function failed, with a message that reads on from its name.
    Failed(Cow<'static, str>),
    /// The function failed, with a message that stands by itself.
    Message(String),
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Function").field(&self.name).finish()
    }
}

impl Function {
    /// Calls the function. What it makes of a secret is marked, and the message of a failure, which may quote its
    /// arguments, is left out if one of them is secret, unless it is a fixed text.
    ///
    /// # Errors
    /// Arguments that do not fit in number or type, and failures of the function itself.
    pub fn invoke(&self, args: &[Value]) -> Result<Value, CallError> {
        if let Some(result) = unknown::call(self, args) {
            return result;
        }
        self.check_count(args.len())?;
        let sensitive = || args.iter().any(Value::holds_secret);
        match (self.call)(args) {
            Ok(value) if self.arity == Arity::Own || self.clears_marks() => Ok(value),
            Ok(value) => Ok(value.marked(sensitive())),
            Err(CallError::Failed(Cow::Owned(_)) | CallError::Message(_)) if sensitive() => {
                let message = "failed, and the reason is hidden because an argument holds a secret";
                Err(CallError::Failed(Cow::Borrowed(message)))
            }
            Err(error) => Err(error),
        }
    }

    /// Refuses a number of arguments that the function does not take.
    pub(crate) fn check_count(&self, got: usize) -> Result<(), CallError> {
        let message = match self.arity {
            Arity::Exactly(count) if got != count => format!("expected {count} args, got {got}"),
            Arity::AtLeast(count) if got < count => format!("expected at least {count} args, got {got}"),
            _ => return Ok(()),
        };
        Err(CallError::Failed(message.into()))
    }

    /// The type of a parameter, as the signature has it.
    pub(crate) fn parameter(&self, index: usize) -> Option<&'static str> {
        let (parameters, _) = self.signature.rsplit_once(") ")?;
        let (_, parameters) = parameters.split_once('(')?;
        let mut last = "";
        for (at, parameter) in parameters.split(", ").enumerate() {
            // What may be left out stands in brackets.
            last = parameter.trim_matches(['[', ']']).rsplit_once(' ')?.1;
            if at == index {
                break;
            }
        }
        let repeated = last.strip_prefix("...");
        (repeated.is_some() || index < parameters.split(", ").count()).then_some(repeated.unwrap_or(last))
    }

    /// The type of the result, as the signature has it.
    pub(crate) fn result(&self) -> &'static str {
        self.signature.rsplit_once(") ").map_or("", |(_, result)| result)
    }

    fn clears_marks(&self) -> bool {
        self.name == "convert.nonsensitive"
    }
}

/// All functions, in order of their names. Static rather than constant, because a function is itself by its address.
pub static FUNCTIONS: &[Function] = &[
    Function {
        name: "array.combine_maps",
        signature: "array.combine_maps(left array, right array, keys array[, keep_left bool]) array",
        doc: "Joins the objects of two arrays that have equal values under all of the keys; fields of the right one win. \
              With keep_left, objects of the left array that match nothing are kept as they are.",
        stability: Stability::Experimental,
        arity: Arity::Own,
        call: array::combine_maps,
    },
    Function {
        name: "array.concat",
        signature: "array.concat(arrays ...array) array",
        doc: "Joins arrays into one.",
        stability: Stability::GenerallyAvailable,
        arity: Arity::Own,
        call: array::concat,
    },
    Function {
        name: "array.group_by",
        signature: "array.group_by(items array, key string, drop_missing bool) array",
        doc: "Groups objects by the text under a key into objects of that key and their items. Objects without the key \
              form a group of their own under the empty text, or are dropped.",
        stability: Stability::Experimental,
        arity: Arity::Own,
        call: array::group_by,
    },
    Function {
        name: "coalesce",
        signature: "coalesce(values ...any) any",
        doc: "The first argument that is neither null, zero, false nor empty; if there is none, the last one.",
        stability: Stability::GenerallyAvailable,
        arity: Arity::Own,
        call: general::coalesce,
    },
    Function {
        name: "convert.nonsensitive",
        signature: "convert.nonsensitive(value secret) string",
        doc: "Turns a secret into a plain string, which is shown wherever it is used.",
        stability: Stability::GenerallyAvailable,
        arity: Arity::Exactly(1),
        call: general::nonsensitive,
    },
    Function {
        name: "encoding.from_URLbase64",
        signature: "encoding.from_URLbase64(text string) bytes",
        doc: "Decodes padded base64 in the alphabet for URLs.",
        stability: Stability::GenerallyAvailable,
        arity: Arity::Exactly(1),
        call: encoding::from_base64_url,
    },
    Function {
        name: "encoding.from_base64",
        signature: "encoding.from_base64(text string) bytes",
        doc: "Decodes padded base64.",
        stability: Stability::GenerallyAvailable,
        arity: Arity::Exactly(1),
        call: encoding::from_base64,
    },
    Function {
        name: "encoding.from_json",
        signature: "encoding.from_json(text string) any",
        doc: "Reads JSON. All numbers become floating-point ones.",
        stability: Stability::GenerallyAvailable,
        arity: Arity::Exactly(1),
        call: encoding::from_json,
    },
    Function {
        name: "encoding.from_yaml",
        signature: "encoding.from_yaml(text string) any",
        doc: "Reads the first document of a YAML text.",
        stability: Stability::GenerallyAvailable,
        arity: Arity::Exactly(1),
        call: encoding::from_yaml,
    },
    Function {
        name: "encoding.to_URLbase64",
        signature: "encoding.to_URLbase64(text string) string",
        doc: "Encodes text in padded base64 with the alphabet for URLs.",
        stability: Stability::GenerallyAvailable,
        arity: Arity::Exactly(1),
        call: encoding::to_base64_url,
    },
    Function {
        name: "encoding.to_base64",
        signature: "encoding.to_base64(text string) string",
        doc: "Encodes text in padded base64.",
        stability: Stability::GenerallyAvailable,
        arity: Arity::Exactly(1),
        call: encoding::to_base64,
    },
    Function {
        name: "encoding.to_json",
        signature: "encoding.to_json(value object) string",
        doc: "Writes an object as compact JSON with sorted keys.",
        stability: Stability::GenerallyAvailable,
        arity: Arity::Exactly(1),
        call: encoding::to_json,
    },
    Function {
        name: "encoding.url_decode",
        signature: "encoding.url_decode(text string) string",
        doc: "Undoes the escaping of a URL's query.",
        stability: Stability::GenerallyAvailable,
        arity: Arity::Exactly(1),
        call: encoding::url_decode,
    },
    Function {
        name: "encoding.url_encode",
        signature: "encoding.url_encode(text string) string",
        doc: "Escapes text so that it can stand in a URL's query.",
        stability: Stability::GenerallyAvailable,
        arity: Arity::Exactly(1),
        call: encoding::url_encode,
    },
    Function {
        name: "file.path_join",
        signature: "file.path_join(parts ...string) string",
        doc: "Joins the parts of a path and tidies the result up. Empty parts are left out.",
        stability: Stability::GenerallyAvailable,
        arity: Arity::AtLeast(0),
        call: general::path_join,
    },
    Function {
        name: "json_path",
        signature: "json_path(json string, path string) array",
        doc: "All values of a JSON text that a JSONPath leads to.",
        stability: Stability::GenerallyAvailable,
        arity: Arity::Exactly(2),
        call: encoding::json_path,
    },
    Function {
        name: "string.format",
        signature: "string.format(format string, values ...any) string",
        doc: "Prints values by a format with the verbs of Go's fmt package: %s, %d, %v, %q and so on.",
        stability: Stability::GenerallyAvailable,
        arity: Arity::AtLeast(1),
        call: text::format,
    },
    Function {
        name: "string.join",
        signature: "string.join(list array, separator string) string",
        doc: "Joins the elements of an array with a separator between them.",
        stability: Stability::GenerallyAvailable,
        arity: Arity::Exactly(2),
        call: text::join,
    },
    Function {
        name: "string.replace",
        signature: "string.replace(text string, old string, new string) string",
        doc: "Replaces all occurrences of a text.",
        stability: Stability::GenerallyAvailable,
        arity: Arity::Exactly(3),
        call: text::replace,
    },
    Function {
        name: "string.split",
        signature: "string.split(text string, separator string) array",
        doc: "Splits a text at a separator; an empty one splits it into its characters.",
        stability: Stability::GenerallyAvailable,
        arity: Arity::Exactly(2),
        call: text::split,
    },
    Function {
        name: "string.to_lower",
        signature: "string.to_lower(text string) string",
        doc: "The text in lower case.",
        stability: Stability::GenerallyAvailable,
        arity: Arity::Exactly(1),
        call: text::to_lower,
    },
    Function {
        name: "string.to_upper",
        signature: "string.to_upper(text string) string",
        doc: "The text in upper case.",
        stability: Stability::GenerallyAvailable,
        arity: Arity::Exactly(1),
        call: text::to_upper,
    },
    Function {
        name: "string.trim",
        signature: "string.trim(text string, characters string) string",
        doc: "The text without any of the characters at its ends.",
        stability: Stability::GenerallyAvailable,
        arity: Arity::Exactly(2),
        call: text::trim,
    },
    Function {
        name: "string.trim_prefix",
        signature: "string.trim_prefix(text string, prefix string) string",
        doc: "The text without a prefix, if it has it.",
        stability: Stability::GenerallyAvailable,
        arity: Arity::Exactly(2),
        call: text::trim_prefix,
    },
    Function {
        name: "string.trim_space",
        signature: "string.trim_space(text string) string",
        doc: "The text without white space at its ends.",
        stability: Stability::GenerallyAvailable,
        arity: Arity::Exactly(1),
        call: text::trim_space,
    },
    Function {
        name: "string.trim_suffix",
        signature: "string.trim_suffix(text string, suffix string) string",
        doc: "The text without a suffix, if it has it.",
        stability: Stability::GenerallyAvailable,
        arity: Arity::Exactly(2),
        call: text::trim_suffix,
    },
    Function {
        name: "sys.env",
        signature: "sys.env(name string) string",
        doc: "The value of an environment variable; empty if it is not set.",
        stability: Stability::GenerallyAvailable,
        arity: Arity::Exactly(1),
        call: general::env,
    },
];

/// Deprecated names without a namespace, and the names of the functions that they stand for, in order.
pub const ALIASES: &[(&str, &str)] = &[
    ("base64_decode", "encoding.from_base64"),
    ("concat", "array.concat"),
    ("env", "sys.env"),
    ("format", "string.format"),
    ("join", "string.join"),
    ("json_decode", "encoding.from_json"),
    ("nonsensitive", "convert.nonsensitive"),
    ("replace", "string.replace"),
    ("split", "string.split"),
    ("to_lower", "string.to_lower"),
    ("to_upper", "string.to_upper"),
    ("trim", "string.trim"),
    ("trim_prefix", "string.trim_prefix"),
    ("trim_space", "string.trim_space"),
    ("trim_suffix", "string.trim_suffix"),
    ("yaml_decode", "encoding.from_yaml"),
];

/// The constants, in order of their names, and what they are.
pub const CONSTANTS: &[(&str, &str)] = &[
    ("constants.arch", "The processor architecture that the program was built for, `amd64`."),
    ("constants.hostname", "The name of the machine; empty if it cannot be found out."),
    ("constants.os", "The operating system that the program was built for, `linux`."),
    ("constants.version", "The version of the program, `v1.2.3`."),
];

/// The function of a name, with its namespace.
pub fn function(name: &str) -> Option<&'static Function> {
    FUNCTIONS.binary_search_by(|function| function.name.cmp(name)).ok().map(|index| &FUNCTIONS[index])
}

/// The name of the function that a deprecated name stands for.
pub fn alias(name: &str) -> Option<&'static str> {
    ALIASES.binary_search_by(|(alias, _)| (*alias).cmp(name)).ok().map(|index| ALIASES[index].1)
}

/// The value of a name of the standard library: a function, a deprecated name of one, or a namespace as an object.
pub fn lookup(name: &str) -> Option<Value> {
    static NAMES: LazyLock<Object> = LazyLock::new(names);
    NAMES.get(name).cloned()
}

fn names() -> Object {
    let mut names = Object::new();
    let mut add = |name: &'static str, value: Value| match name.split_once('.') {
        None => _ = names.insert(Arc::from(name), value),
        Some((namespace, name)) => {
            let entry = names.entry(Arc::from(namespace)).or_insert_with(|| Value::object(Object::new()));
            if let Data::Object(fields) = &mut entry.data {
                Arc::make_mut(fields).insert(Arc::from(name), value);
            }
        }
    };
    for function in FUNCTIONS {
        add(function.name, Value::new(Data::Function(function)));
    }
    for (name, target) in ALIASES {
        if let Some(function) = function(target) {
            add(name, Value::new(Data::Function(function)));
        }
    }
    for (name, _) in CONSTANTS {
        add(name, Value::string(general::constant(name)));
    }
    names
}

/// An argument converted, or the error that names it.
fn arg<T>(args: &[Value], index: usize, convert: impl FnOnce(&Value) -> Result<T, ValueError>) -> Result<T, CallError> {
    convert(args.get(index).unwrap_or(&Value::NULL)).map_err(|error| CallError::Argument { index, error })
}

/// The error that an argument, or a part of it, is of another type than the one needed.
fn expected(index: usize, ty: Type, found: &Value) -> CallError {
    CallError::Argument { index, error: ValueError::expected(ty, found) }
}

/// The error that the result would be larger than the limit.
fn too_large() -> CallError {
    CallError::Failed(crate::ops::too_large_text("text").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_in_order_and_say_what_they_hold() {
        assert!(FUNCTIONS.is_sorted_by(|a, b| a.name < b.name));
        assert!(ALIASES.is_sorted_by(|a, b| a.0 < b.0));
        assert!(CONSTANTS.is_sorted_by(|a, b| a.0 < b.0));
        for function in FUNCTIONS {
            assert!(function.signature.starts_with(&format!("{}(", function.name)), "{}", function.name);
            assert!(function.doc.ends_with('.') && function.doc.len() > 10, "{}", function.name);
            assert!(std::ptr::eq(super::function(function.name).unwrap(), function));
        }
        let experimental: Vec<&str> =
            FUNCTIONS.iter().filter(|f| f.stability == Stability::Experimental).map(|f| f.name).collect();
        assert_eq!(experimental, ["array.combine_maps", "array.group_by"]);
    }

    #[test]
    fn every_name_is_found_in_its_namespace_and_every_alias_means_a_function() {
        let find = |name: &str| match name.split_once('.') {
            None => lookup(name),
            Some((namespace, name)) => lookup(namespace)?.field(name),
        };
        for function in FUNCTIONS {
            assert!(matches!(find(function.name).unwrap().data, Data::Function(found) if found.name == function.name));
        }
        for (name, target) in ALIASES {
            assert_eq!(alias(name), Some(*target));
            assert!(matches!(find(name).unwrap().data, Data::Function(found) if found.name == *target));
        }
        for (name, _) in CONSTANTS {
            assert!(find(name).unwrap().as_str().is_some(), "{name}");
        }
        let version = find("constants.version").unwrap();
        assert!(version.as_str().unwrap().starts_with('v'));
        assert!(lookup("nothing").is_none() && alias("coalesce").is_none());
    }

    #[test]
    fn signatures_say_the_types_of_parameters_and_results() {
        let types = |name: &str, count| {
            let function = function(name).unwrap();
            ((0..count).map(|index| function.parameter(index)).collect::<Vec<_>>(), function.result())
        };
        let (string, array) = (Some("string"), Some("array"));
        assert_eq!(types("string.format", 3), (vec![string, Some("any"), Some("any")], "string"));
        assert_eq!(types("array.concat", 2), (vec![array, array], "array"));
        assert_eq!(types("array.combine_maps", 5), (vec![array, array, array, Some("bool"), None], "array"));
        assert_eq!(types("string.join", 3), (vec![array, string, None], "string"));
        let known = ["any", "array", "bool", "bytes", "object", "secret", "string"];
        for function in FUNCTIONS {
            assert!(known.contains(&function.parameter(0).unwrap()), "{}", function.name);
            assert!(known.contains(&function.result()), "{}", function.name);
        }
    }

    #[test]
    fn the_number_of_arguments_is_checked_before_they_are() {
        let failed = |name: &str, count: usize| match function(name).unwrap().invoke(&vec![Value::NULL; count]) {
            Err(CallError::Failed(message)) => message.into_owned(),
            other => panic!("{other:?}"),
        };
        assert_eq!(failed("string.trim", 3), "expected 2 args, got 3");
        assert_eq!(failed("string.format", 0), "expected at least 1 args, got 0");
    }

    #[test]
    fn results_above_the_limits_are_refused() {
        let text = Value::from("x".repeat(1 << 20));
        let message = |result: Result<Value, CallError>| match result {
            Err(CallError::Failed(message)) => message.into_owned(),
            other => panic!("{other:?}"),
        };
        let long = [text.clone(), Value::from("x"), Value::from("y".repeat(100))];
        assert!(message(function("string.replace").unwrap().invoke(&long)).contains("bytes"));
        let list = Value::array(vec![text.clone(); 65]);
        assert!(message(function("string.join").unwrap().invoke(&[list, Value::from("")])).contains("bytes"));
        let items = Value::bytes(vec![0u8; crate::limits::ITEMS_MAX / 2 + 1]);
        assert!(message(function("array.concat").unwrap().invoke(&[items.clone(), items])).contains("elements"));
        let left = Value::object(Object::from([(Arc::from("k"), Value::int(1))]));
        let many = Value::array(vec![left; 2001]);
        let keys = Value::array(vec![Value::from("k")]);
        assert!(
            message(function("array.combine_maps").unwrap().invoke(&[many.clone(), many, keys])).contains("elements")
        );
    }

    #[test]
    fn left_objects_without_a_match_are_kept_once() {
        let object = |key: i64| Value::object(Object::from([(Arc::from("k"), Value::int(key))]));
        let left = Value::array(vec![object(1), object(2)]);
        let keys = Value::array(vec![Value::from("k")]);
        let combine = |right: Vec<Value>| {
            let args = [left.clone(), Value::array(right), keys.clone(), Value::bool(true)];
            function("array.combine_maps").unwrap().invoke(&args).unwrap()
        };
        assert_eq!(combine(vec![object(3), object(4), object(2)]), left);
        assert_eq!(combine(Vec::new()), left);
    }
}
