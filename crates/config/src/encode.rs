//! Arguments and exports as the HTTP API shows them.
//!
//! A body is a list of attributes and blocks. What is optional and equal to its default or to zero is left out. What was
//! decoded from a secret is masked, also where the Rust type is a plain string: decoding notes the places in a
//! [`Sensitive`], and encoding takes it.

use std::any::Any;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use crate::arguments::Record;
use crate::decode;
use crate::render;
use crate::schema::{Absent, Arity, BlockAbsent, Body, FieldKind, Overrides, Schema, Slot, TypeInfo, override_of};
use crate::value::{Data, Object, Value};

/// An attribute or a block of a body.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// `name = value`.
    Attr {
        /// Its name.
        name: String,
        /// Its value. What is to be masked is marked.
        value: Value,
    },
    /// `name "label" { ... }`.
    Block {
        /// Its name with its dots.
        name: String,
        /// Its label.
        label: Option<String>,
        /// What stands between the braces.
        body: Vec<Item>,
    },
}

/// The places of decoded arguments whose values were made from secrets. Empty for most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sensitive(BTreeSet<String>);

impl Sensitive {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Notes what is to be masked in the value of an attribute.
    pub(crate) fn note(&mut self, place: &str, value: &Value) {
        if value.is_masked() {
            self.0.insert(place.to_owned());
            return;
        }
        if !value.holds_secret() {
            return;
        }
        match &value.data {
            Data::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.note(&element_place(place, index), item);
                }
            }
            Data::Object(fields) => {
                for (name, field) in fields.iter() {
                    self.note(&field_place(place, name), field);
                }
            }
            _ => {}
        }
    }

    /// The value of an attribute with the marks that were noted.
    fn mark(&self, place: &str, value: Value) -> Value {
        // Whatever is noted within a place comes right after it in the order of the set.
        let within =
            |noted: &String| noted.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let first = place.to_owned();
        if !self.0.range(first..).take_while(|noted| noted.starts_with(place)).any(within) {
            return value;
        }
        if self.0.contains(place) {
            return value.marked(true);
        }
        let sensitive = value.sensitive;
        match value.data {
            Data::Array(items) => {
                let items = items.iter().enumerate();
                let items: Vec<Value> =
                    items.map(|(index, item)| self.mark(&element_place(place, index), item.clone())).collect();
                Value::array(items).marked(sensitive)
            }
            Data::Object(fields) => {
                let fields = fields.iter();
                let fields =
                    fields.map(|(name, field)| (Arc::clone(name), self.mark(&field_place(place, name), field.clone())));
                Value::object(fields.collect()).marked(sensitive)
            }
            // The noted place lies within a value that has become something else: better hidden as a whole.
            _ => value.marked(true),
        }
    }
}

/// The place of an attribute within the place of its body.
pub(crate) fn field_place(body: &str, name: &str) -> String {
    format!("{body}/{name}")
}

/// The place of an element within the place of its array.
fn element_place(array: &str, index: usize) -> String {
    format!("{array}/[{index}]")
}

/// The place of a block within the place of its body: by its number among those of one name, or of one group.
pub(crate) fn block_place(body: &str, name: &str, index: usize) -> String {
    format!("{body}/{name}#{index}")
}

/// Decoded arguments as a body.
pub fn arguments<T: Record>(value: &T, sensitive: &Sensitive) -> Vec<Item> {
    let mut items = Vec::new();
    body(T::SCHEMA, value, &[], sensitive, "", &mut items);
    items
}

/// Exports as a body. Unlike arguments, all of them are shown.
pub fn exports<T: Record>(value: &T) -> Vec<Item> {
    let attr = |(index, field): (usize, &crate::schema::Field)| match field.kind {
        FieldKind::Attr { ty, .. } => {
            let value = (ty.to_value)(value.field(index)?)?;
            Some(Item::Attr { name: field.name.to_owned(), value })
        }
        _ => None,
    };
    T::SCHEMA.fields.iter().enumerate().filter_map(attr).collect()
}

/// A struct as an object of the language.
pub(crate) fn object(schema: &Schema, value: &dyn Any) -> Object {
    let mut out = Object::new();
    for (index, field) in schema.fields.iter().enumerate() {
        let Some(member) = (schema.ops.field)(value, index) else { continue };
        match field.kind {
            FieldKind::Attr { ty, .. } => {
                out.extend((ty.to_value)(member).map(|value| (field.name.into(), value)));
            }
            FieldKind::Flatten { schema, .. } => out.append(&mut object(schema(), member)),
            FieldKind::Block { block, .. } => {
                let blocks = (block.items)(member);
                let value = match block.arity {
                    Arity::One | Arity::Optional => blocks.first().map(|value| body_value(&block.body, *value)),
                    Arity::Many | Arity::Exactly(_) => Some(list_value(&block.body, &blocks)),
                };
                out.insert(field.name.into(), value.unwrap_or(Value::NULL));
            }
            FieldKind::Group { prefix, group } => {
                let variants = (group.one_of)().variants;
                let blocks = (group.items)(member).into_iter().filter_map(|(index, value)| {
                    let variant = variants.get(index)?;
                    let name = format!("{prefix}.{}", variant.name);
                    Some(Value::object(Object::from([(name.into(), body_value(&variant.body, value))])))
                });
                out.insert(prefix.into(), Value::array(blocks.collect::<Vec<_>>()));
            }
            FieldKind::Label => {}
        }
    }
    out
}

/// What stands between the braces of a block as an object.
fn body_value(body: &Body, value: &dyn Any) -> Value {
    match body {
        Body::Struct(schema) => Value::object(object(schema(), value)),
        Body::Map { element, entries, .. } => {
            let entries = entries(value).into_iter();
            Value::object(entries.filter_map(|(name, value)| Some((name.into(), (element.to_value)(value)?))).collect())
        }
    }
}

/// Blocks as an array, or as an object with their labels as keys.
fn list_value(body: &Body, blocks: &[&dyn Any]) -> Value {
    let labelled = blocks.iter().map(|value| Some((label(body, *value)?.into(), body_value(body, *value))));
    match labelled.collect::<Option<Object>>() {
        Some(object) if !object.is_empty() => Value::object(object),
        _ => Value::array(blocks.iter().map(|value| body_value(body, *value)).collect::<Vec<_>>()),
    }
}

/// The label of a decoded block, if blocks of its type have one.
fn label<'a>(body: &Body, value: &'a dyn Any) -> Option<&'a str> {
    let Body::Struct(schema) = body else { return None };
    let schema = schema();
    (schema.ops.field)(value, schema.label()?)?.downcast_ref::<String>().map(String::as_str)
}

fn body(
    schema: &'static Schema,
    value: &dyn Any,
    overrides: Overrides<'_>,
    sensitive: &Sensitive,
    place: &str,
    out: &mut Vec<Item>,
) {
    for (index, field) in schema.fields.iter().enumerate() {
        let Some(member) = (schema.ops.field)(value, index) else { continue };
        match field.kind {
            FieldKind::Label => {}
            FieldKind::Attr { ty, absent } => {
                let Some(value) = (ty.to_value)(member) else { continue };
                let absent = override_of(overrides, field.name).map_or(absent, Absent::Literal);
                if !is_default(ty, absent, &value) {
                    let value = sensitive.mark(&field_place(place, field.name), value);
                    out.push(Item::Attr { name: field.name.to_owned(), value });
                }
            }
            FieldKind::Flatten { schema, defaults } => {
                let overrides: Vec<_> = overrides.iter().copied().chain([defaults]).collect();
                body(schema(), member, &overrides, sensitive, place, out);
            }
            FieldKind::Block { block, absent, defaults } => {
                let write = |member: &dyn Any, sensitive: &Sensitive| {
                    let mut items = Vec::new();
                    for (index, value) in (block.items)(member).into_iter().enumerate() {
                        let place = block_place(place, field.name, index);
                        items.push(block_item(field.name.to_owned(), &block.body, value, defaults, sensitive, &place));
                    }
                    items
                };
                let items = write(member, sensitive);
                let none = Sensitive::default();
                let shown = |slot: Option<Slot>| slot.is_some_and(|slot| write(&*slot, &none) == items);
                let hidden = match absent {
                    BlockAbsent::Refused => false,
                    BlockAbsent::Zero => shown((block.zero)()),
                    BlockAbsent::Defaults => shown(decode::default_block(block, defaults)),
                    BlockAbsent::Computed { make, .. } => shown(Some(make())),
                };
                if !hidden {
                    out.extend(items);
                }
            }
            FieldKind::Group { prefix, group } => {
                let variants = (group.one_of)().variants;
                for (index, (variant, value)) in (group.items)(member).into_iter().enumerate() {
                    let Some(variant) = variants.get(variant) else { continue };
                    let place = block_place(place, prefix, index);
                    let name = format!("{prefix}.{}", variant.name);
                    out.push(block_item(name, &variant.body, value, &[], sensitive, &place));
                }
            }
        }
    }
}

fn block_item(
    name: String,
    contents: &Body,
    value: &dyn Any,
    defaults: &'static [(&'static str, &'static str)],
    sensitive: &Sensitive,
    place: &str,
) -> Item {
    let mut items = Vec::new();
    match contents {
        Body::Struct(schema) => body(schema(), value, &[defaults], sensitive, place, &mut items),
        Body::Map { element, entries, .. } => {
            for (name, value) in entries(value) {
                if let Some(value) = (element.to_value)(value) {
                    let value = sensitive.mark(&field_place(place, name), value);
                    items.push(Item::Attr { name: name.to_owned(), value });
                }
            }
        }
    }
    Item::Block { name, label: label(contents, value).map(str::to_owned), body: items }
}

/// Whether an attribute is optional and has its default or its zero value.
fn is_default(ty: &'static TypeInfo, absent: Absent, value: &Value) -> bool {
    let same = |slot: Option<Slot>| slot.and_then(|slot| (ty.to_value)(&*slot)).is_some_and(|other| other == *value);
    let default = match absent {
        Absent::Refused => return false,
        Absent::Zero => None,
        Absent::Literal(text) => decode::default_value(ty, text).ok(),
        Absent::Computed { make, .. } => Some(make()),
    };
    same(default) || same((ty.zero)())
}

/// A body as the JSON of the HTTP API: a list of `{"name", "type": "attr", "value"}` and
/// `{"name", "type": "block", "label"?, "body"}`.
pub fn json(items: &[Item]) -> String {
    let mut out = String::new();
    write_json(items, &mut out);
    out
}

/// Appends what [`json`] returns.
pub fn write_json(items: &[Item], out: &mut String) {
    out.push('[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        match item {
            Item::Attr { name, value } => {
                // Names are identifiers but in map blocks made by hand, so that nothing needs an escape in the others.
                _ = write!(out, r#"{{"name":{},"type":"attr","value":"#, json_string(name));
                render::write_json(value, out);
            }
            Item::Block { name, label, body } => {
                _ = write!(out, r#"{{"name":{},"type":"block""#, json_string(name));
                if let Some(label) = label.as_deref().filter(|label| !label.is_empty()) {
                    _ = write!(out, r#","label":{}"#, json_string(label));
                }
                out.push_str(r#","body":"#);
                write_json(body, out);
            }
        }
        out.push('}');
    }
    out.push(']');
}

fn json_string(text: &str) -> String {
    let mut out = String::new();
    render::write_json_string(text, &mut out);
    out
}
