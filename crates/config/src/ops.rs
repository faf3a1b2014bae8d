//! The operators of the language.

use std::cmp::Ordering;
use std::sync::Arc;

use corten_syntax::{BinaryOp, UnaryOp};

use crate::error::ValueError;
use crate::limits::TEXT_BYTES_MAX;
use crate::unknown;
use crate::value::{Data, OptionalSecret, Type, Value};

/// Which operand of an operator is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The left one.
    Left,
    /// The right one.
    Right,
}

/// What a binary operator takes, in the order in which diagnostics list it; nothing for those that take everything.
pub(crate) fn accepted(op: BinaryOp) -> Option<&'static [Type]> {
    Some(match op {
        BinaryOp::Or | BinaryOp::And => &[Type::Bool],
        BinaryOp::Add => &[Type::Number, Type::String, Type::Capsule],
        BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div | BinaryOp::Mod | BinaryOp::Pow => &[Type::Number],
        BinaryOp::Lt | BinaryOp::Le | BinaryOp::Gt | BinaryOp::Ge => &[Type::Number, Type::String],
        BinaryOp::Eq | BinaryOp::Ne => return None,
    })
}

/// The text about an operand of a type that an operator does not take.
pub(crate) fn not_accepted(op: BinaryOp, accepted: &[Type], got: Type) -> String {
    let names: Vec<&str> = accepted.iter().map(|ty| ty.name()).collect();
    format!("should be one of [{}] for binop {}, got {got}", names.join(" "), op.as_str())
}

/// The text about a division by zero, of integers and of other numbers.
pub(crate) const DIVIDE_BY_ZERO: &str = "divide by zero error";

/// Applies a unary operator.
pub fn unary(op: UnaryOp, value: &Value) -> Result<Value, ValueError> {
    if let Some(result) = unknown::unary(op, value) {
        return result;
    }
    let result = match (op, &value.data) {
        (UnaryOp::Not, Data::Bool(value)) => Value::bool(!value),
        (UnaryOp::Not, _) => return Err(ValueError::expected(Type::Bool, value)),
        (UnaryOp::Neg, Data::Number(number)) => Value::from(number.negate()),
        (UnaryOp::Neg, _) => return Err(ValueError::expected(Type::Number, value)),
    };
    Ok(result.marked(value.sensitive))
}

/// Applies a binary operator. What is made from a secret is marked.
pub fn binary(left: &Value, op: BinaryOp, right: &Value) -> Result<Value, (Side, ValueError)> {
    if let Some(result) = unknown::binary(left, op, right) {
        return result;
    }
    let sensitive = left.holds_secret() || right.holds_secret();
    let (l, r) = unwrap_secrets(left, right);
    let Some(accepted) = accepted(op) else {
        return Ok(Value::bool(equal(&l, &r) == (op == BinaryOp::Eq)).marked(sensitive));
    };
    for (side, value, shown) in [(Side::Left, &l, left), (Side::Right, &r, right)] {
        if !accepted.contains(&value.ty()) {
            return Err((side, ValueError::new(shown, not_accepted(op, accepted, value.ty()))));
        }
    }
    if l.ty() != r.ty() {
        return Err((Side::Right, ValueError { found: right.clone(), ..ValueError::expected(l.ty(), &r) }));
    }
    let zero = || (Side::Right, ValueError::new(right, DIVIDE_BY_ZERO));
    let too_large = || (Side::Right, ValueError::new(right, too_large_text("text")));
    let result = match (&l.data, op, &r.data) {
        (Data::Bool(a), BinaryOp::Or, Data::Bool(b)) => Value::bool(*a || *b),
        (Data::Bool(a), BinaryOp::And, Data::Bool(b)) => Value::bool(*a && *b),
        (Data::Number(a), _, Data::Number(b)) => match op {
            BinaryOp::Add => a.wrapping_add(*b).into(),
            BinaryOp::Sub => a.wrapping_sub(*b).into(),
            BinaryOp::Mul => a.wrapping_mul(*b).into(),
            BinaryOp::Div => a.checked_div(*b).ok_or_else(zero)?.into(),
            BinaryOp::Mod => a.checked_rem(*b).ok_or_else(zero)?.into(),
            BinaryOp::Pow => a.pow(*b).into(),
            _ => Value::bool(ordered(op, a.compare(*b))),
        },
        (Data::String(a), BinaryOp::Add, Data::String(b)) => Value::string(joined(a, b).ok_or_else(too_large)?),
        (Data::String(a), _, Data::String(b)) => Value::bool(ordered(op, Some(a.as_bytes().cmp(b.as_bytes())))),
        (Data::Secret(a), _, Data::Secret(b)) => Value::secret(joined(a, b).ok_or_else(too_large)?),
        (Data::OptionalSecret(a), _, Data::OptionalSecret(b)) => {
            Value::optional_secret(joined(&a.text, &b.text).ok_or_else(too_large)?, a.is_secret || b.is_secret)
        }
        _ => {
            let message = format!("could not perform binop {op} for unknown types lhs {} rhs {}", l.ty(), r.ty());
            return Err((Side::Left, ValueError::new(left, message)));
        }
    };
    Ok(result.marked(sensitive))
}

/// The text of the refusal to make something of more than the limit.
pub(crate) fn too_large_text(what: &str) -> String {
    format!("would make a {what} of more than {TEXT_BYTES_MAX} bytes")
}

fn joined(a: &str, b: &str) -> Option<Arc<str>> {
    (a.len() + b.len() <= TEXT_BYTES_MAX).then(|| Arc::from([a, b].concat()))
}

fn ordered(op: BinaryOp, ordering: Option<Ordering>) -> bool {
    ordering.is_some_and(|ordering| match op {
        BinaryOp::Lt => ordering.is_lt(),
        BinaryOp::Le => ordering.is_le(),
        BinaryOp::Gt => ordering.is_gt(),
        _ => ordering.is_ge(),
    })
}

/// The operands as operators see them: where one is a secret or an optional secret and the other a string or the other
/// kind of secret, both become of one kind, the more secret one. An optional secret that is not flagged is a string
/// beside a string.
fn unwrap_secrets(left: &Value, right: &Value) -> (Value, Value) {
    let plain = |text: &Arc<str>| Value::string(Arc::clone(text));
    let secret = |text: &Arc<str>| Value::secret(Arc::clone(text));
    let flagged = |text: &Arc<str>| Value::optional_secret(Arc::clone(text), true);
    match (&left.data, &right.data) {
        (Data::OptionalSecret(a), Data::Secret(_)) => (secret(&a.text), right.clone()),
        (Data::Secret(_), Data::OptionalSecret(b)) => (left.clone(), secret(&b.text)),
        (Data::Secret(_), Data::String(b)) => (left.clone(), secret(b)),
        (Data::String(a), Data::Secret(_)) => (secret(a), right.clone()),
        (Data::OptionalSecret(OptionalSecret { is_secret: true, .. }), Data::String(b)) => (left.clone(), flagged(b)),
        (Data::OptionalSecret(a), Data::String(_)) => (plain(&a.text), right.clone()),
        (Data::String(a), Data::OptionalSecret(OptionalSecret { is_secret: true, .. })) => (flagged(a), right.clone()),
        (Data::String(_), Data::OptionalSecret(b)) => (left.clone(), plain(&b.text)),
        _ => (left.clone(), right.clone()),
    }
}

/// The language's `==` of two values that are not secrets to be unwrapped: different types differ, numbers compare by
/// value whatever their kind, arrays and objects by their elements, capsules by what they hold; functions never equal.
pub fn equal(left: &Value, right: &Value) -> bool {
    match (&left.data, &right.data) {
        (Data::Null, Data::Null) => true,
        (Data::Bool(a), Data::Bool(b)) => a == b,
        (Data::Number(a), Data::Number(b)) => a.compare(*b) == Some(Ordering::Equal),
        (Data::String(a), Data::String(b)) | (Data::Secret(a), Data::Secret(b)) => a == b,
        (Data::Bytes(a), Data::Bytes(b)) => a == b,
        (Data::Array(_) | Data::Bytes(_), Data::Array(_) | Data::Bytes(_)) => {
            left.len() == right.len() && left.items().zip(right.items()).all(|(a, b)| equal(&a, &b))
        }
        (Data::Object(a), Data::Object(b)) => {
            a.len() == b.len() && a.iter().zip(b.iter()).all(|((a, x), (b, y))| a == b && equal(x, y))
        }
        (Data::OptionalSecret(a), Data::OptionalSecret(b)) => a == b,
        (Data::Capsule(a), Data::Capsule(b)) => Arc::ptr_eq(a, b) || a.equals(b.as_ref()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hush() -> Value {
        Value::secret("hush")
    }

    fn open() -> Value {
        Value::optional_secret("pub", false)
    }

    fn shut() -> Value {
        Value::optional_secret("shh", true)
    }

    #[test]
    fn secrets_concatenate_into_the_more_secret_kind() {
        let text = || Value::string("x");
        let cases = [
            (text(), hush(), Value::secret("xhush")),
            (hush(), text(), Value::secret("hushx")),
            (hush(), hush(), Value::secret("hushhush")),
            (open(), hush(), Value::secret("pubhush")),
            (hush(), shut(), Value::secret("hushshh")),
            (shut(), text(), Value::optional_secret("shhx", true)),
            (text(), shut(), Value::optional_secret("xshh", true)),
            (open(), text(), Value::string("pubx")),
            (text(), open(), Value::string("xpub")),
            (open(), open(), Value::optional_secret("pubpub", false)),
            (open(), shut(), Value::optional_secret("pubshh", true)),
        ];
        for (left, right, expected) in cases {
            let got = binary(&left, BinaryOp::Add, &right).unwrap();
            assert_eq!(got.data, expected.data);
            assert_eq!(got.sensitive, left.is_masked() || right.is_masked());
        }
    }

    #[test]
    fn secrets_compare_by_content_and_the_outcome_is_marked() {
        let equals = |a: Value, b: Value| binary(&a, BinaryOp::Eq, &b).unwrap();
        assert_eq!(equals(hush(), Value::string("hush")), Value::bool(true).marked(true));
        assert_eq!(equals(Value::string("no"), shut()), Value::bool(false).marked(true));
        assert_eq!(equals(open(), Value::string("pub")), Value::bool(true));
        assert_eq!(equals(open(), open()), Value::bool(true));
        // Within arrays nothing is unwrapped.
        let array = |value| Value::array(vec![value]);
        assert_eq!(equals(array(hush()), array(Value::string("hush"))).data, Data::Bool(false));
        let less = binary(&open(), BinaryOp::Lt, &Value::string("q")).unwrap();
        assert_eq!(less, Value::bool(true));
        let (side, error) = binary(&hush(), BinaryOp::Lt, &Value::string("q")).unwrap_err();
        assert_eq!(
            (side, error.message.as_str()),
            (Side::Left, "should be one of [number string] for binop <, got capsule")
        );
    }

    #[test]
    fn a_text_above_the_limit_is_refused() {
        let half = Value::string("x".repeat(TEXT_BYTES_MAX / 2 + 1));
        assert!(binary(&half, BinaryOp::Add, &half).is_err());
    }
}
