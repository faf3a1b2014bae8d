//! Functions and constants that belong to no type.

use std::sync::Arc;

use super::{CallError, arg, too_large};
use crate::convert::{to_secret, to_text};
use crate::limits::TEXT_BYTES_MAX;
use crate::value::{Data, Value};

pub(super) fn coalesce(args: &[Value]) -> Result<Value, CallError> {
    let chosen = args.iter().find(|value| !is_nothing(value)).or(args.last());
    Ok(chosen.cloned().unwrap_or_default())
}

/// Whether a value is null, the zero value of its type, or an array, object or object-like capsule without elements.
fn is_nothing(value: &Value) -> bool {
    match &value.data {
        Data::Null => true,
        Data::Bool(value) => !value,
        Data::Number(number) => number.is_zero(),
        Data::String(text) | Data::Secret(text) => text.is_empty(),
        Data::OptionalSecret(secret) => secret.text.is_empty() && !secret.is_secret,
        Data::Bytes(_) | Data::Array(_) | Data::Object(_) => value.is_empty(),
        Data::Function(_) => false,
        Data::Capsule(capsule) => capsule.as_object().is_some_and(|fields| fields.is_empty()),
    }
}

pub(super) fn nonsensitive(args: &[Value]) -> Result<Value, CallError> {
    arg(args, 0, to_secret).map(Value::string)
}

pub(super) fn env(args: &[Value]) -> Result<Value, CallError> {
    let name = arg(args, 0, to_text)?;
    // These names are none to the operating system, and asking for one of them panics.
    if name.is_empty() || name.contains(['=', '\0']) {
        return Ok(Value::string(""));
    }
    let value = std::env::var_os(&*name).unwrap_or_default();
    Ok(Value::string(value.to_string_lossy()))
}

pub(super) fn path_join(args: &[Value]) -> Result<Value, CallError> {
    let mut joined = String::new();
    for index in 0..args.len() {
        let part = arg(args, index, to_text)?;
        if part.is_empty() {
            continue;
        }
        if joined.len() + part.len() >= TEXT_BYTES_MAX {
            return Err(too_large());
        }
        if !joined.is_empty() {
            joined.push('/');
        }
        joined.push_str(&part);
    }
    Ok(Value::string(if joined.is_empty() { joined } else { clean_path(&joined) }))
}

/// The shortest path that leads to the same place, without asking the file system: no `.`, no `..` but at the start of a
/// relative path, no doubled or trailing slash.
fn clean_path(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(last) if *last != ".." => _ = parts.pop(),
                _ if rooted => {}
                _ => parts.push(".."),
            },
            part => parts.push(part),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

/// The value of a constant.
pub(super) fn constant(name: &str) -> Arc<str> {
    match name {
        "constants.hostname" => hostname().into(),
        "constants.os" => match std::env::consts::OS {
            "macos" => "darwin".into(),
            os => os.into(),
        },
        "constants.arch" => match std::env::consts::ARCH {
            "x86_64" => "amd64".into(),
            "x86" => "386".into(),
            "aarch64" => "arm64".into(),
            "powerpc64" => "ppc64".into(),
            "loongarch64" => "loong64".into(),
            arch => arch.into(),
        },
        _ => concat!("v", env!("CARGO_PKG_VERSION")).into(),
    }
}

/// The name of the machine: from the kernel, or where that is not to be read, from the environment.
fn hostname() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let from_env = || ["HOSTNAME", "COMPUTERNAME"].iter().find_map(|name| std::env::var(name).ok());
    kernel.or_else(from_env).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_joined_and_tidied() {
        let cases: &[(&[&str], &str)] = &[
            (&[], ""),
            (&["", ""], ""),
            (&["a", "b"], "a/b"),
            (&["a/", "/b"], "a/b"),
            (&["/", "a"], "/a"),
            (&["a", "..", ".."], ".."),
            (&["/a", "../../b/./c/"], "/b/c"),
            (&["."], "."),
            (&["", "x"], "x"),
            (&["..", "..", "a"], "../../a"),
        ];
        for (parts, expected) in cases {
            let args: Vec<Value> = parts.iter().map(|part| Value::from(*part)).collect();
            assert_eq!(path_join(&args).unwrap(), Value::from(*expected), "{parts:?}");
        }
    }

    #[test]
    fn a_variable_that_cannot_exist_is_empty() {
        for name in ["", "A=B", "\0", "CORTEN_TEST_NO_SUCH_VARIABLE"] {
            assert_eq!(env(&[Value::from(name)]).unwrap(), Value::from(""));
        }
        assert_ne!(env(&[Value::from("PATH")]).unwrap(), Value::from(""));
    }
}
