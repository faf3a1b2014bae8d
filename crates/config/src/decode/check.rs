//! Static checks of expressions: what can be told of a value without the components that it comes from.

use std::sync::Arc;

use corten_syntax::{BinaryOp, Expr, Ident, LiteralKind, SourceFile, UnaryOp, quote};

use super::context::References;
use super::walk::{Outcome, UNKNOWN, Walk};
use crate::eval;
use crate::schema::{Absent, FieldKind, Schema, Shape, TypeInfo};
use crate::value::Type;

impl Walk<'_> {
    /// Checks the value of an attribute. What consists of literals is converted as at run time; of what does not, the
    /// parts are.
    pub(super) fn check_value(
        &mut self,
        references: &dyn References,
        ty: &'static TypeInfo,
        source: &Arc<SourceFile>,
        expr: &Expr,
    ) -> Outcome {
        if is_constant(expr) {
            return match eval::evaluate(source, expr, &()) {
                Ok(value) => self.convert(ty, source, expr, &value),
                Err(error) => {
                    self.problem(source, error.span, error.message);
                    UNKNOWN
                }
            };
        }
        let mut inner = expr;
        while let Expr::Paren(paren) = inner {
            inner = &paren.inner;
        }
        match (inner, &ty.shape) {
            (Expr::Array(array), Shape::List(element) | Shape::Array(element, _)) => {
                for item in &array.elements {
                    self.check_value(references, element, source, item);
                }
                if let Shape::Array(_, count) = ty.shape
                    && count != array.elements.len()
                {
                    let len = array.elements.len();
                    let message = format!("array must have exactly {count} elements, got {len}");
                    self.problem(source, inner.span(), message);
                }
            }
            (Expr::Object(object), Shape::Map(element)) => {
                for field in &object.fields {
                    self.check_value(references, element, source, &field.value);
                }
            }
            (Expr::Object(object), Shape::List(element)) if element.shape.is_labelled() => {
                for field in &object.fields {
                    self.check_value(references, element, source, &field.value);
                }
            }
            (Expr::Object(object), Shape::Object(schema)) => {
                self.check_object(references, schema(), source, expr, object);
            }
            (Expr::Array(_) | Expr::Object(_), Shape::Any) => {
                self.shape_of(references, source, inner);
            }
            (Expr::Object(_), Shape::Capsule(info)) if info.object_like => {
                self.shape_of(references, source, inner);
            }
            (Expr::Array(_), shape) => {
                let message = format!("expected {}, got {}", shape.kind(), Type::Array);
                self.problem(source, inner.span(), message);
            }
            (Expr::Object(_), shape) => {
                let message = format!("expected {}, got {}", shape.kind(), Type::Object);
                self.problem(source, inner.span(), message);
            }
            (_, shape) => {
                if let Some(got) = self.shape_of(references, source, inner)
                    && let Err(message) = shape.accepts(&got)
                {
                    self.problem(source, expr.span(), message);
                }
            }
        }
        UNKNOWN
    }

    fn check_object(
        &mut self,
        references: &dyn References,
        schema: &'static Schema,
        source: &Arc<SourceFile>,
        expr: &Expr,
        object: &corten_syntax::Object,
    ) {
        // The fields of a labelled struct are within the one field that is the label.
        if schema.label().is_some() {
            self.shape_of(references, source, expr);
            return;
        }
        for field in &object.fields {
            let name = &*field.name.text;
            match schema.find(name).map(|field| &field.kind) {
                Some(FieldKind::Attr { ty, .. }) => {
                    self.check_value(references, ty, source, &field.value);
                }
                Some(_) => {
                    self.shape_of(references, source, &field.value);
                }
                None if has_dotted(schema, name) => {
                    self.shape_of(references, source, &field.value);
                }
                None => self.unknown_field(source, expr, name),
            }
        }
        for name in required(schema) {
            if !object.fields.iter().any(|field| *field.name.text == *name) {
                self.problem(source, expr.span(), format!("missing required attribute {}", quote(name)));
            }
        }
    }

    /// The shape of an expression's value, where it can be told, and a diagnostic for every field of an export that there
    /// is none of.
    ///
    /// Walks down to the leftmost operand without recursion, because chains like `a + b + c` are as deep as they are
    /// long.
    fn shape_of(&mut self, references: &dyn References, source: &Arc<SourceFile>, expr: &Expr) -> Option<Shape> {
        let mut pending = Vec::new();
        let mut at = expr;
        loop {
            let next = match at {
                Expr::Paren(paren) => &paren.inner,
                Expr::Binary(binary) => &binary.left,
                Expr::Access(access) => &access.value,
                Expr::Index(index) => &index.value,
                Expr::Call(call) => &call.function,
                _ => break,
            };
            pending.push(at);
            at = next;
        }
        let mut shape = match at {
            Expr::Identifier(name) => {
                let mut names = vec![name];
                while let Some(Expr::Access(access)) = pending.last() {
                    names.push(&access.name);
                    pending.pop();
                }
                self.reference(references, source, &names)
            }
            leaf => self.leaf_shape(references, source, leaf),
        };
        while let Some(node) = pending.pop() {
            shape = match node {
                Expr::Access(access) => self.member(source, shape, &access.name),
                Expr::Index(index) => {
                    self.shape_of(references, source, &index.index);
                    shape.and_then(element)
                }
                Expr::Call(call) => {
                    for arg in &call.args {
                        self.shape_of(references, source, arg);
                    }
                    None
                }
                Expr::Binary(binary) => {
                    self.shape_of(references, source, &binary.right);
                    match binary.op {
                        BinaryOp::Or | BinaryOp::And | BinaryOp::Eq | BinaryOp::Ne => Some(Shape::Bool),
                        BinaryOp::Lt | BinaryOp::Le | BinaryOp::Gt | BinaryOp::Ge => Some(Shape::Bool),
                        // A sum is a number, a string or a secret.
                        BinaryOp::Add => None,
                        _ => Some(Shape::Float),
                    }
                }
                _ => shape,
            };
        }
        shape
    }

    fn leaf_shape(&mut self, references: &dyn References, source: &Arc<SourceFile>, leaf: &Expr) -> Option<Shape> {
        match leaf {
            Expr::Literal(literal) => match literal.kind {
                LiteralKind::Null => None,
                LiteralKind::Bool => Some(Shape::Bool),
                LiteralKind::Number | LiteralKind::Float => Some(Shape::Float),
                LiteralKind::String => Some(Shape::String),
            },
            Expr::Unary(unary) => {
                self.shape_of(references, source, &unary.value);
                Some(if unary.op == UnaryOp::Not { Shape::Bool } else { Shape::Float })
            }
            Expr::Array(array) => {
                for item in &array.elements {
                    self.shape_of(references, source, item);
                }
                None
            }
            Expr::Object(object) => {
                for field in &object.fields {
                    self.shape_of(references, source, &field.value);
                }
                None
            }
            _ => None,
        }
    }

    /// The shape of a component's export, or of something within it.
    fn reference(&mut self, references: &dyn References, source: &Arc<SourceFile>, names: &[&Ident]) -> Option<Shape> {
        let texts: Vec<&str> = names.iter().map(|name| &*name.text).collect();
        let (len, exports) = references.exports(&texts)?;
        let (export, rest) = names.get(len..)?.split_first()?;
        let Some(ty) = exports.attr(&export.text) else {
            self.missing_field(source, export);
            return None;
        };
        let mut shape = Some(ty.shape);
        for name in rest {
            shape = self.member(source, shape, name);
        }
        shape
    }

    fn member(&mut self, source: &Arc<SourceFile>, shape: Option<Shape>, name: &Ident) -> Option<Shape> {
        match shape? {
            Shape::Map(element) => Some(element.shape),
            Shape::Capsule(info) if info.object_like => Some(Shape::String),
            Shape::Object(schema) => {
                let schema = schema();
                match schema.find(&name.text).map(|field| &field.kind) {
                    Some(FieldKind::Attr { ty, .. }) => Some(ty.shape),
                    Some(_) => None,
                    None => {
                        if !has_dotted(schema, &name.text) {
                            self.missing_field(source, name);
                        }
                        None
                    }
                }
            }
            _ => None,
        }
    }

    fn missing_field(&mut self, source: &Arc<SourceFile>, name: &Ident) {
        self.problem(source, name.span, format!("field {} does not exist", quote(&name.text)));
    }
}

/// The shape of an element.
fn element(shape: Shape) -> Option<Shape> {
    match shape {
        Shape::List(element) | Shape::Array(element, _) | Shape::Map(element) => Some(element.shape),
        Shape::Capsule(info) if info.object_like => Some(Shape::String),
        _ => None,
    }
}

/// Whether an expression consists of literals, so that its value is the same now and later. Functions are left out: what
/// `sys.env` returns where the configuration is checked says nothing about where it runs.
fn is_constant(expr: &Expr) -> bool {
    let mut at = expr;
    loop {
        at = match at {
            Expr::Paren(paren) => &paren.inner,
            Expr::Unary(unary) => &unary.value,
            Expr::Binary(binary) => {
                if !is_constant(&binary.right) {
                    return false;
                }
                &binary.left
            }
            Expr::Literal(_) => return true,
            Expr::Array(array) => return array.elements.iter().all(is_constant),
            Expr::Object(object) => return object.fields.iter().all(|field| is_constant(&field.value)),
            Expr::Identifier(_) | Expr::Access(_) | Expr::Index(_) | Expr::Call(_) => return false,
        };
    }
}

/// Whether a struct has blocks whose names begin with a name and a dot.
fn has_dotted(schema: &'static Schema, name: &str) -> bool {
    let begins = |other: &str| other.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
    schema.fields.iter().any(|field| match field.kind {
        FieldKind::Flatten { schema, .. } => has_dotted(schema(), name),
        FieldKind::Group { prefix, .. } => prefix == name || begins(prefix),
        FieldKind::Attr { .. } | FieldKind::Block { .. } => begins(field.name),
        FieldKind::Label => false,
    })
}

/// The names of the attributes that an object must have.
fn required(schema: &'static Schema) -> Vec<&'static str> {
    let mut names = Vec::new();
    for field in schema.fields {
        match field.kind {
            FieldKind::Attr { absent: Absent::Refused, .. } => names.push(field.name),
            // A place may set defaults for what is required otherwise.
            FieldKind::Flatten { schema, defaults } => {
                names.extend(required(schema()).into_iter().filter(|name| !defaults.iter().any(|(d, _)| d == name)));
            }
            _ => {}
        }
    }
    names
}
