//! Structs and words from values.

use std::sync::Arc;

use super::frame::{Fault, Frame, Required};
use super::{MismatchKind, Mismatches, Typed, ValueContext};
use crate::convert::to_text;
use crate::error::ValueError;
use crate::schema::{Arity, BlockType, Body, FieldKind, Schema, Shape, Slot, Stability, Words};
use crate::unknown;
use crate::value::{Type, Value};

/// What is wanted where a struct or a map is read, for values that are not known.
const ANY_OBJECT: Shape = Shape::Map(<Value as Typed>::TYPE);

/// A struct from an object. A labelled struct takes an object of one field, whose name is the label.
pub(crate) fn object(schema: &'static Schema, value: &Value, cx: &ValueContext) -> Result<Slot, Mismatches> {
    unknown::stand_in(value, &ANY_OBJECT, cx)?;
    if value.to_object().is_none() {
        return Err(ValueError::expected(Type::Object, value).into());
    }
    if schema.label().is_none() {
        return fields(schema, None, value, cx);
    }
    match value.entries().as_slice() {
        [(label, inner)] => labelled(schema, label, inner, cx).map_err(|errors| errors.in_field(label)),
        entries => {
            let message = format!("object must have exactly 1 keys, got {}", entries.len());
            Err(ValueError::new(value, message).into())
        }
    }
}

/// A labelled struct from its label and the object within.
pub(crate) fn labelled(
    schema: &'static Schema,
    label: &str,
    value: &Value,
    cx: &ValueContext,
) -> Result<Slot, Mismatches> {
    unknown::stand_in(value, &ANY_OBJECT, cx)?;
    if value.to_object().is_none() {
        return Err(ValueError::expected(Type::Object, value).into());
    }
    fields(schema, Some(label), value, cx)
}

fn fields(schema: &'static Schema, label: Option<&str>, value: &Value, cx: &ValueContext) -> Result<Slot, Mismatches> {
    let mut frame = Frame::new(schema, &[]);
    if let Some(label) = label {
        frame.set_label(label);
    }
    let mut errors = Vec::new();
    fill(&mut frame, "", value, cx, &mut errors);

    let required = if cx.checking { Required::Enforced } else { Required::Lenient };
    let mut faults = Vec::new();
    let (slot, _) = frame.finish(required, cx.minimum, &mut faults);
    let whole = |fault: &Fault| {
        let kind = match fault {
            Fault::MissingAttr(_) | Fault::MissingBlock(_) => MismatchKind::Missing,
            Fault::Rule { .. } | Fault::Defect(_) => MismatchKind::Object,
        };
        Mismatches::of(kind, ValueError::new(value, fault.message()))
    };
    errors.extend(faults.iter().map(whole));
    let results = errors.into_iter().map(Err);
    Mismatches::all::<()>(results)?;
    slot.ok_or_else(|| ValueError::expected(Type::Object, value).into())
}

/// Puts the fields of an object in place. A block whose name has dots is an object within an object.
fn fill(frame: &mut Frame, prefix: &str, value: &Value, cx: &ValueContext, errors: &mut Vec<Mismatches>) {
    let schema = frame.schema;
    for (name, field) in value.entries() {
        let full = format!("{prefix}{name}");
        let before = errors.len();
        match frame.find(&full) {
            Some((found, state)) => {
                state.written = Some(corten_syntax::Span::default());
                let kind = if matches!(found.field.kind, FieldKind::Attr { .. }) { "attribute" } else { "block" };
                if let Some(refusal) = refusal(kind, &full, found.field.stability, cx) {
                    errors.push(ValueError::new(&field, refusal).into());
                }
                match found.field.kind {
                    FieldKind::Attr { ty, .. } => match (ty.decode)(&field, cx) {
                        Ok(slot) => state.slot = Some(slot),
                        Err(error) => errors.push(error),
                    },
                    FieldKind::Block { block, .. } => match blocks(block, &field, cx) {
                        Ok(slots) => state.blocks = slots.into_iter().map(|slot| (0, Some(slot))).collect(),
                        Err(error) => errors.push(error),
                    },
                    FieldKind::Group { group, .. } => {
                        let variant = found.variant.unwrap_or_default();
                        let body = (group.one_of)().variants[variant].body;
                        match body_of(&body, &field, cx) {
                            Ok(slot) => state.blocks.push((variant, Some(slot))),
                            Err(error) => errors.push(error),
                        }
                    }
                    FieldKind::Flatten { .. } | FieldKind::Label => {}
                }
                state.unknown |= errors.len() > before;
            }
            None if field.is_unknown() && schema.begins_name(&format!("{full}.")) => {
                // Which of the blocks are in it is not known, nor so what they say.
                errors.push(Mismatches::unknown(&field));
            }
            None if field.to_object().is_some() && schema.begins_name(&format!("{full}.")) => {
                fill(frame, &format!("{full}."), &field, cx, errors);
            }
            None => {
                let error = ValueError::unknown_field(&name, &field);
                errors.push(Mismatches::of(MismatchKind::UnknownField, error));
            }
        }
        for error in &mut errors[before..] {
            *error = error.clone().in_field(&name);
        }
    }
}

/// The blocks of a field from an object, from an array of objects or, if they have labels, from an object of objects.
fn blocks(block: &BlockType, value: &Value, cx: &ValueContext) -> Result<Vec<Slot>, Mismatches> {
    if let Arity::One | Arity::Optional = block.arity {
        return match (value.is_null(), block.arity) {
            (true, Arity::Optional) => Ok(Vec::new()),
            _ => Ok(vec![body_of(&block.body, value, cx)?]),
        };
    }
    if value.is_unknown() {
        let labelled = matches!(&block.body, Body::Struct(schema) if schema().label().is_some());
        let wanted = if labelled { Shape::Any } else { Shape::List(<Value as Typed>::TYPE) };
        unknown::stand_in(value, &wanted, cx)?;
    }
    let slots = match (&block.body, value.ty()) {
        (Body::Struct(schema), Type::Object) if schema().label().is_some() => Mismatches::all(
            value
                .entries()
                .iter()
                .map(|(label, field)| labelled(schema(), label, field, cx).map_err(|errors| errors.in_field(label))),
        )?,
        (_, Type::Array) => Mismatches::all(
            value
                .items()
                .enumerate()
                .map(|(index, item)| body_of(&block.body, &item, cx).map_err(|errors| errors.in_index(index))),
        )?,
        (_, Type::Null) => Vec::new(),
        _ => return Err(ValueError::expected(Type::Array, value).into()),
    };
    match block.arity {
        Arity::Exactly(count) if count != slots.len() => {
            let message = format!("array must have exactly {count} elements, got {}", slots.len());
            Err(ValueError::new(value, message).into())
        }
        _ => Ok(slots),
    }
}

/// What stands between the braces of a block, from an object.
fn body_of(body: &Body, value: &Value, cx: &ValueContext) -> Result<Slot, Mismatches> {
    let none = || Mismatches::from(ValueError::expected(Type::Object, value));
    match body {
        Body::Struct(schema) => match value.is_null() {
            true => crate::arguments::zero_record(schema()).ok_or_else(none),
            false => object(schema(), value, cx),
        },
        Body::Map { element, collect, .. } => {
            unknown::stand_in(value, &ANY_OBJECT, cx)?;
            if value.to_object().is_none() && !value.is_null() {
                return Err(none());
            }
            let entries = value.entries();
            let slots = Mismatches::all(entries.iter().map(|(name, field)| {
                (element.decode)(field, cx).map(|slot| (&**name, slot)).map_err(|errors| errors.in_field(name))
            }))?;
            collect(slots).ok_or_else(none)
        }
    }
}

/// The number of a word.
pub(crate) fn word(words: &Words, value: &Value, cx: &ValueContext) -> Result<usize, Mismatches> {
    let text: Arc<str> = to_text(value)?;
    let index = words.find(&text).map_err(|refusal| ValueError::new(value, refusal))?;
    match words.values.get(index).and_then(|word| refusal("value", word.text, word.stability, cx)) {
        Some(refusal) => Err(ValueError::new(value, refusal).into()),
        None => Ok(index),
    }
}

/// The refusal of what lies below the minimum of stability.
pub(super) fn refusal(kind: &str, name: &str, level: Stability, cx: &ValueContext) -> Option<String> {
    level.refusal(&format!("{kind} {}", corten_syntax::quote(name)), cx.minimum)
}
