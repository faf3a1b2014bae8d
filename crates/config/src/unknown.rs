//! Values that are not known yet: what stands for a component's exports where a configuration is checked without being
//! run.
//!
//! A value of this kind has a shape, or none, and whatever is made of it is unknown in turn. What its shape says already
//! is told: a field that an export does not have, an operator that takes no such type. The same evaluation and the same
//! decoding serve the program that runs and the check; only the scope differs.

use std::any::Any;
use std::borrow::Cow;
use std::sync::Arc;

use corten_syntax::{BinaryOp, Block, Stmt, UnaryOp, quote};

use crate::convert;
use crate::decode::{Mismatches, Typed, ValueContext};
use crate::error::ValueError;
use crate::eval::{self, Scope};
use crate::ops::{self, Side};
use crate::schema::{Absent, FieldKind, Schema, Shape};
use crate::stdlib::{CallError, Function};
use crate::value::{Capsule, Data, Object, Type, Value};

/// What is known of a value that is not known.
#[derive(Clone, Debug)]
pub(crate) struct Unknown(Option<Shape>);

impl Capsule for Unknown {
    fn type_name(&self) -> &'static str {
        "unknown"
    }

    fn equals(&self, _: &dyn Capsule) -> bool {
        false
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Value {
    /// A value of which nothing is known.
    pub fn unknown() -> Self {
        Value::capsule(Arc::new(Unknown(None)))
    }

    /// A value of which only the shape is known.
    pub fn unknown_of(shape: Shape) -> Self {
        Value::capsule(Arc::new(Unknown(Some(shape))))
    }

    /// Whether it is not known.
    pub fn is_unknown(&self) -> bool {
        self.as_unknown().is_some()
    }

    /// Whether anything in it, at any depth, is not known.
    pub fn holds_unknown(&self) -> bool {
        match &self.data {
            Data::Array(items) => items.iter().any(Value::holds_unknown),
            Data::Object(fields) => fields.values().any(Value::holds_unknown),
            _ => self.is_unknown(),
        }
    }

    fn as_unknown(&self) -> Option<&Unknown> {
        self.as_capsule()?.as_any().downcast_ref()
    }
}

/// The exports of a component that does not run: an object of unknown values. Its block, the schema of its arguments and
/// what the names in the block stand for tell which of them are secret.
pub fn exports(exports: &Schema, arguments: &Schema, block: &Block, scope: &dyn Scope) -> Value {
    let fields = exports.fields.iter().filter_map(|field| {
        let FieldKind::Attr { ty, .. } = field.kind else { return None };
        let shape = match field.secret_if.map(|name| flag(name, arguments, block, scope)) {
            Some(Some(true)) => Shape::Secret,
            Some(Some(false)) => Shape::String,
            _ => ty.shape,
        };
        Some((Arc::from(field.name), Value::unknown_of(shape)))
    });
    Value::object(fields.collect())
}

/// The truth value that an argument of a block has, as far as it is known.
fn flag(name: &str, arguments: &Schema, block: &Block, scope: &dyn Scope) -> Option<bool> {
    let written = block.body.iter().find_map(|stmt| match stmt {
        Stmt::Attr(attr) if *attr.name.text == *name => Some(attr),
        _ => None,
    });
    if let Some(attr) = written {
        let value = eval::evaluate(&attr.source, &attr.value, scope).ok()?;
        return if value.is_null() { Some(false) } else { value.as_bool() };
    }
    match arguments.find(name)?.kind {
        FieldKind::Attr { absent: Absent::Literal(text), .. } => Some(text == "true"),
        FieldKind::Attr { absent: Absent::Zero, .. } => Some(false),
        _ => None,
    }
}

/// The type of a value, as far as it is known.
pub(crate) fn known_type(value: &Value) -> Option<Type> {
    match value.as_unknown() {
        None => Some(value.ty()),
        Some(Unknown(None | Some(Shape::Any))) => None,
        Some(Unknown(Some(shape))) => Some(shape.kind()),
    }
}

/// Whether it is some kind of secret, which operators take for the text in it.
fn may_be_text_inside(value: &Value) -> bool {
    match value.as_unknown() {
        Some(Unknown(shape)) => matches!(shape, Some(Shape::Secret | Shape::OptionalSecret)),
        None => matches!(value.data, Data::Secret(_) | Data::OptionalSecret(_)),
    }
}

fn unknown_element() -> Shape {
    Shape::List(<Value as Typed>::TYPE)
}

/// A part of a value that is not known.
pub(crate) enum Part {
    /// It is there.
    Is(Value),
    /// There is none of that name.
    Missing,
    /// A value of that type has no parts of the kind.
    None(Type),
}

/// A field of a value, if the value is not known.
pub(crate) fn field(value: &Value, name: &str) -> Option<Part> {
    let Unknown(shape) = value.as_unknown()?;
    Some(match shape {
        None | Some(Shape::Any) => Part::Is(Value::unknown()),
        Some(Shape::Map(element)) => Part::Is(Value::unknown_of(element.shape)),
        Some(Shape::Capsule(info)) if info.object_like => Part::Is(Value::unknown_of(Shape::String)),
        Some(Shape::Object(schema)) => {
            let schema = schema();
            match schema.find(name).map(|field| &field.kind) {
                Some(FieldKind::Attr { ty, .. }) => Part::Is(Value::unknown_of(ty.shape)),
                Some(_) => Part::Is(Value::unknown()),
                None if schema.begins_name(&format!("{name}.")) => Part::Is(Value::unknown()),
                None => Part::Missing,
            }
        }
        Some(shape) => Part::None(shape.kind()),
    })
}

/// What is wrong with an index, and whether it is the container or the place that is at fault.
pub(crate) enum IndexError {
    /// The container, by a message about it.
    Container(ValueError),
    /// The container has no elements at all.
    NotAContainer,
    /// The place.
    Place(ValueError),
}

/// An element of a container, if that or the place in it is not known.
pub(crate) fn index(value: &Value, place: &Value) -> Option<Result<Value, IndexError>> {
    if !value.is_unknown() && !place.is_unknown() {
        return None;
    }
    let wants = |ty: Type, element: Value| match known_type(place) {
        Some(got) if got != ty => Err(IndexError::Place(ValueError::new(place, format!("should be {ty}, got {got}")))),
        _ => Ok(element),
    };
    let shape = value.as_unknown().and_then(|Unknown(shape)| *shape);
    let element = match shape {
        Some(Shape::List(element) | Shape::Array(element, _)) => Value::unknown_of(element.shape),
        // A name that an object does not have is null in an index, and null converts to anything.
        Some(Shape::Object(_)) => match place.as_str().and_then(|name| field(value, name)) {
            Some(Part::Is(part)) => part,
            Some(_) => Value::NULL,
            None => Value::unknown(),
        },
        _ => Value::unknown(),
    };
    Some(match known_type(value) {
        None => Ok(element),
        Some(Type::Array) => wants(Type::Number, element),
        Some(Type::Object) => wants(Type::String, element),
        Some(Type::Capsule) => match shape {
            Some(Shape::Capsule(info)) if info.object_like => wants(Type::String, element),
            None if value.to_object().is_some() => wants(Type::String, element),
            _ => Err(IndexError::NotAContainer),
        },
        Some(ty) => Err(IndexError::Container(ValueError::new(value, format!("expected object or array, got {ty}")))),
    })
}

/// The result of a unary operator, if its operand is not known.
pub(crate) fn unary(op: UnaryOp, value: &Value) -> Option<Result<Value, ValueError>> {
    let Unknown(_) = value.as_unknown()?;
    let (wanted, shape) = match op {
        UnaryOp::Not => (Type::Bool, Shape::Bool),
        UnaryOp::Neg => (Type::Number, Shape::Float),
    };
    Some(match known_type(value) {
        Some(ty) if ty != wanted => Err(ValueError::new(value, format!("should be {wanted}, got {ty}"))),
        _ => Ok(Value::unknown_of(shape)),
    })
}

/// The result of a binary operator, if it depends on what is not known.
pub(crate) fn binary(left: &Value, op: BinaryOp, right: &Value) -> Option<Result<Value, (Side, ValueError)>> {
    let Some(accepted) = ops::accepted(op) else {
        return (left.holds_unknown() || right.holds_unknown()).then(|| Ok(Value::unknown_of(Shape::Bool)));
    };
    if !left.is_unknown() && !right.is_unknown() {
        return None;
    }
    let types = [(Side::Left, left), (Side::Right, right)].map(|(side, value)| {
        // A secret may be compared and joined like the text in it, beside a text.
        (side, value, if may_be_text_inside(value) { None } else { known_type(value) })
    });
    for (side, value, ty) in types {
        if let Some(ty) = ty
            && !accepted.contains(&ty)
        {
            return Some(Err((side, ValueError::new(value, ops::not_accepted(op, accepted, ty)))));
        }
    }
    let [(_, _, l), (_, _, r)] = types;
    if let (Some(l), Some(r)) = (l, r)
        && l != r
    {
        return Some(Err((Side::Right, ValueError::new(right, format!("should be {l}, got {r}")))));
    }
    let shape = match op {
        BinaryOp::Or | BinaryOp::And | BinaryOp::Lt | BinaryOp::Le | BinaryOp::Gt | BinaryOp::Ge => Some(Shape::Bool),
        BinaryOp::Eq | BinaryOp::Ne => Some(Shape::Bool),
        BinaryOp::Add => match (l, r) {
            (Some(Type::Number), _) | (_, Some(Type::Number)) => Some(Shape::Float),
            (Some(Type::String), Some(Type::String)) => Some(Shape::String),
            _ => None,
        },
        BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div | BinaryOp::Mod | BinaryOp::Pow => Some(Shape::Float),
    };
    if matches!(op, BinaryOp::Div | BinaryOp::Mod) && right.as_number().is_some_and(crate::value::Number::is_zero) {
        return Some(Err((Side::Right, ValueError::new(right, ops::DIVIDE_BY_ZERO))));
    }
    Some(Ok(shape.map_or_else(Value::unknown, Value::unknown_of)))
}

/// The result of a call, if it depends on what is not known.
pub(crate) fn call(function: &Function, args: &[Value]) -> Option<Result<Value, CallError>> {
    if !args.iter().any(Value::holds_unknown) {
        return None;
    }
    // It moves elements without looking at them.
    if function.name == "array.concat" && !args.iter().any(Value::is_unknown) {
        return None;
    }
    Some(untyped_call(function, args))
}

fn untyped_call(function: &Function, args: &[Value]) -> Result<Value, CallError> {
    function.check_count(args.len())?;
    for (index, arg) in args.iter().enumerate() {
        let wrong = match (function.parameter(index), arg.as_unknown()) {
            (Some("string"), None) => convert::to_text(arg).err(),
            (Some("string"), Some(Unknown(Some(shape)))) => refused(&Shape::String, shape, arg),
            (Some("array"), _) => match known_type(arg) {
                Some(Type::Array) | None => None,
                Some(ty) => Some(ValueError::new(arg, format!("should be {}, got {ty}", Type::Array))),
            },
            _ => None,
        };
        if let Some(error) = wrong {
            return Err(CallError::Argument { index, error });
        }
    }
    Ok(match function.result() {
        "string" => Value::unknown_of(Shape::String),
        "array" => Value::unknown_of(unknown_element()),
        _ => Value::unknown(),
    })
}

/// Why a value of a shape is none of another, in the words of evaluation.
fn refused(wanted: &Shape, got: &Shape, value: &Value) -> Option<ValueError> {
    let message = wanted.accepts(got).err()?;
    let message = match message.strip_prefix("expected ") {
        Some(rest) => Cow::Owned(format!("should be {rest}")),
        None => Cow::Borrowed(message.as_str()),
    };
    Some(ValueError::new(value, message))
}

/// What is to be decoded in place of a value, where a static check does not know all of it: the value without what is
/// not known, so that the rest is looked at. What comes of that is not the value, and not to be used.
///
/// Nothing comes back for a value that is known, and for one whose parts are decoded one by one.
///
/// # Errors
/// A value of which nothing but the shape is known, with what is wrong with that.
pub(crate) fn stand_in(value: &Value, wanted: &Shape, cx: &ValueContext) -> Result<Option<Value>, Mismatches> {
    if !cx.checking {
        return Ok(None);
    }
    if let Some(Unknown(shape)) = value.as_unknown() {
        return Err(match shape.as_ref().map(|shape| wanted.accepts(shape)) {
            Some(Err(message)) => ValueError::new(value, message).into(),
            _ => Mismatches::unknown(value),
        });
    }
    let by_parts = matches!(wanted, Shape::List(_) | Shape::Array(..) | Shape::Map(_) | Shape::Object(_));
    if by_parts || !value.holds_unknown() {
        return Ok(None);
    }
    Ok(Some(without_unknown(value)))
}

fn without_unknown(value: &Value) -> Value {
    let data = match &value.data {
        Data::Array(items) => Data::Array(items.iter().map(without_unknown).collect()),
        Data::Object(fields) => {
            let known = |(name, field): (&Arc<str>, &Value)| match field.as_unknown() {
                None => Some((Arc::clone(name), without_unknown(field))),
                // Whatever is in it, it is a secret.
                Some(Unknown(Some(Shape::Secret))) => Some((Arc::clone(name), Value::secret(""))),
                Some(_) => None,
            };
            Data::Object(Arc::new(fields.iter().filter_map(known).collect::<Object>()))
        }
        data if !value.is_unknown() => data.clone(),
        _ => Data::Null,
    };
    Value { data, sensitive: value.sensitive }
}

/// The error that names what a value of a type is asked for.
pub(crate) fn no_field(name: &str, ty: Type, value: &Value) -> ValueError {
    ValueError::new(value, format!("cannot access field {} on value of type {ty}", quote(name)))
}
