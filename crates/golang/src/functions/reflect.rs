//! Types, defaults and conditions.

use super::Type::{Any, Bool, Text};
use super::lists::is_empty;
use super::{Function, any, function, text, variadic};
use crate::template::Value;

pub(super) const FUNCTIONS: &[Function] = &[
    variadic("all", &[], Any, |_, args| Ok(Value::Bool(!args.iter().any(is_empty)))),
    variadic("any", &[], Any, |_, args| Ok(Value::Bool(args.iter().any(|arg| !is_empty(arg))))),
    variadic("coalesce", &[], Any, |_, args| Ok(args.iter().find(|arg| !is_empty(arg)).cloned().unwrap_or(Value::Nil))),
    function("deepEqual", &[Any, Any], |_, args| any(args, 0).deep_equal(any(args, 1)).map(Value::Bool)),
    variadic("default", &[Any], Any, |_, args| {
        Ok(args.get(1).filter(|given| !is_empty(given)).unwrap_or(any(args, 0)).clone())
    }),
    function("empty", &[Any], |_, args| Ok(Value::Bool(is_empty(any(args, 0))))),
    function("fail", &[Text], |_, args| Err(String::from_utf8_lossy(text(args, 0)).into_owned())),
    function("kindIs", &[Text, Any], |_, args| Ok(Value::Bool(text(args, 0) == any(args, 1).kind_name()))),
    function("kindOf", &[Any], |_, args| Ok(Value::from(any(args, 0).kind_name()))),
    function("ternary", &[Any, Any, Bool], |_, args| Ok(any(args, if any(args, 2).is_true() { 0 } else { 1 }).clone())),
    function("typeIs", &[Text, Any], |_, args| Ok(Value::Bool(text(args, 0) == any(args, 1).type_name()))),
    function("typeIsLike", &[Text, Any], |_, args| {
        let (wanted, name) = (text(args, 0), any(args, 1).type_name());
        let pointed = name.strip_prefix('*').is_some_and(|name| wanted == name);
        Ok(Value::Bool(wanted == name || pointed))
    }),
    function("typeOf", &[Any], |_, args| Ok(Value::from(any(args, 0).type_name()))),
];
