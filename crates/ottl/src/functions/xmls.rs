//! Functions that look into documents of XML and change them.

use super::Kind::{ConstText, Text};
use super::{Function, Prepared, Refused, const_str, optional, param};
use crate::error::EvalError;
use crate::item::Item;
use crate::program::{Arg, Call};
use crate::value::Val;
use crate::xml::tree::{Place, Tree};
use crate::xml::xpath::XPath;

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "GetXML",
        params: &[param("target", Text), param("xpath", ConstText)],
        prepare: |args| xpath(args, 1, ""),
        run: |call, item| {
            let Some(tree) = document(call, item)? else { return Ok(Val::from("")) };
            let places = places(call, &tree)?;
            Ok(Val::from(tree.pick(&places)?))
        },
    },
    Function {
        name: "RemoveXML",
        params: &[param("target", Text), param("xpath", ConstText)],
        prepare: |args| xpath(args, 1, ""),
        run: |call, item| {
            let Some(mut tree) = document(call, item)? else { return Ok(Val::from("")) };
            let places = places(call, &tree)?;
            tree.remove(&places);
            Ok(Val::from(tree.write_all()))
        },
    },
    Function {
        name: "InsertXML",
        params: &[param("target", Text), param("xpath", ConstText), param("sub_document", Text)],
        prepare: |args| xpath(args, 1, ""),
        run: |call, item| {
            let mut tree = document(call, item)?.unwrap_or_else(Tree::empty);
            let inserted = Tree::read(&String::from_utf8_lossy(&call.owned(2, item)?))?;
            let places = places(call, &tree)?;
            tree.insert(&places, &inserted)?;
            Ok(Val::from(tree.write_all()))
        },
    },
    Function {
        name: "ConvertAttributesToElementsXML",
        params: &[param("target", Text), optional("xpath", ConstText)],
        prepare: |args| xpath(args, 1, "//@*"),
        run: |call, item| {
            let mut tree = document(call, item)?.ok_or("there is no element")?;
            let places = places(call, &tree)?;
            tree.attributes_to_elements(&places);
            Ok(Val::from(tree.write_all()))
        },
    },
    Function {
        name: "ConvertTextToElementsXML",
        params: &[param("target", Text), optional("xpath", ConstText), optional("element_name", ConstText)],
        prepare: |args| xpath(args, 1, "/"),
        run: |call, item| {
            let mut tree = document(call, item)?.ok_or("there is no element")?;
            let places = places(call, &tree)?;
            let name = const_str(&call.args, 2).filter(|name| !name.is_empty()).unwrap_or("value".into());
            tree.texts_to_elements(&places, &name)?;
            Ok(Val::from(tree.write_all()))
        },
    },
];

/// The argument with this number is an XPath; where there is none, or an empty one, it is another.
fn xpath(args: &[Option<Arg>], at: usize, otherwise: &str) -> Result<Prepared, Refused> {
    let source = const_str(args, at).filter(|source| !source.is_empty() || otherwise.is_empty());
    let xpath = XPath::new(source.as_deref().unwrap_or(otherwise));
    xpath.map(|xpath| Prepared::XPath(Box::new(xpath))).map_err(|error| (at, format!("invalid xpath: {error}")))
}

/// The document that a function is about; nothing of an empty text.
fn document(call: &Call, item: &mut Item<'_>) -> Result<Option<Tree>, EvalError> {
    let text = call.owned(0, item)?;
    if text.is_empty() {
        return Ok(None);
    }
    let tree = Tree::read(&String::from_utf8_lossy(&text));
    tree.map(Some).map_err(|error| format!("parse xml: {error}").into())
}

fn places(call: &Call, tree: &Tree) -> Result<Vec<Place>, EvalError> {
    match &call.prepared {
        Prepared::XPath(xpath) => Ok(xpath.select(tree)?),
        _ => Err("there is no XPath".into()),
    }
}
