//! What is wrong with a value, before it is known where in the user's text the value stands.

use std::fmt;
use std::sync::Arc;

use crate::value::{MASK, Type, Value};

/// One step from a value to something inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathStep {
    /// To an element of an array, printed as `[3]`.
    Index(usize),
    /// To a field of an object, printed as `.name`.
    Field(Arc<str>),
}

impl fmt::Display for PathStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathStep::Index(index) => write!(f, "[{index}]"),
            PathStep::Field(name) => write!(f, ".{name}"),
        }
    }
}

/// A value that cannot be used as it stands.
///
/// Whoever converts a value makes one at the place of the fault, and each caller on the way out adds the step that it
/// took with [`ValueError::within`]. Who knows the expression that the value came from turns it into a diagnostic with
/// [`crate::eval::EvalError::locate`], which walks the path into the expression as far as the text goes and prints the
/// rest behind it: `targets[2].port should be number, got string`.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueError {
    /// From the value that was to be converted to the one at fault, outermost step first.
    pub path: Vec<PathStep>,
    /// The value at fault.
    pub found: Value,
    /// What is wrong with it, to be read after its expression: `should be number, got string`.
    pub message: String,
}

impl ValueError {
    /// A fault of this value, with a message that reads on from the value's expression.
    pub fn new(found: &Value, message: impl Into<String>) -> Self {
        ValueError { path: Vec::new(), found: found.clone(), message: message.into() }
    }

    /// The value has another type than the one that is needed.
    pub fn expected(expected: Type, found: &Value) -> Self {
        ValueError::new(found, format!("should be {expected}, got {}", found.ty()))
    }

    /// The value is no capsule of the type that is needed.
    pub fn expected_capsule(type_name: &str, found: &Value) -> Self {
        let expected = corten_syntax::quote(type_name);
        ValueError::new(found, format!("expected capsule({expected}), got {}", found.describe()))
    }

    /// The object has a field that nothing asks for. `found` is the value of the field.
    pub fn unknown_field(name: &str, found: &Value) -> Self {
        ValueError::new(found, format!("does not have field named {}", corten_syntax::quote(name)))
    }

    /// The same fault, seen from the array or object that holds the value.
    #[must_use]
    pub fn within(mut self, step: PathStep) -> Self {
        self.path.insert(0, step);
        self
    }

    /// The same fault, seen from the array that holds the value at this index.
    #[must_use]
    pub fn in_index(self, index: usize) -> Self {
        self.within(PathStep::Index(index))
    }

    /// The same fault, seen from the object that holds the value under this name.
    #[must_use]
    pub fn in_field(self, name: &str) -> Self {
        self.within(PathStep::Field(name.into()))
    }

    /// The message, with the text of a secret value in it masked.
    ///
    /// Texts of failed conversions quote what they could not read (`time: invalid duration "..."`), and what they
    /// quote may have been made from a secret.
    pub fn safe_message(&self) -> String {
        mask_in(&self.message, &self.found)
    }
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.path {
            write!(f, "{step}")?;
        }
        write!(f, "{}{}", if self.path.is_empty() { "" } else { " " }, self.safe_message())
    }
}

impl std::error::Error for ValueError {}

/// A text in which every occurrence of the text of a secret value is masked, also in its quoted form.
fn mask_in(message: &str, found: &Value) -> String {
    if !found.is_masked() {
        return message.to_owned();
    }
    let text = match &found.data {
        crate::value::Data::String(text) | crate::value::Data::Secret(text) => text.to_string(),
        crate::value::Data::OptionalSecret(secret) => secret.text.to_string(),
        crate::value::Data::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        crate::value::Data::Number(number) => number.to_string(),
        _ => return message.to_owned(),
    };
    if text.is_empty() {
        return message.to_owned();
    }
    let quoted = corten_syntax::quote(&text);
    let inner = &quoted[1..quoted.len() - 1];
    message.replace(inner, MASK).replace(&text, MASK)
}
