//! The walk over a body and its table.

use std::collections::BTreeMap;
use std::sync::Arc;

use corten_syntax::{Attr, Block, Diagnostic, Expr, LiteralKind, SourceFile, Span, Stmt, quote};

use super::context::{DecodeContext, DecodeErrors, Decoded, Problem};
use super::frame::{Fault, Frame, Required};
use super::object::refusal;
use super::{Mismatch, MismatchKind, Mismatches, ValueContext};
use crate::arguments::{Arguments, CheckStep, unboxed};
use crate::encode::{Sensitive, block_place, field_place};
use crate::error::PathStep;
use crate::eval::{self, EvalError, Scope};
use crate::literal::part_of_literal;
use crate::schema::{Arity, Body, FieldKind, Overrides, Schema, Slot, TypeInfo};
use crate::value::{Data, MASK, Value};

/// Decodes the body of a component's block. The label of the block is its caller's business.
///
/// # Errors
/// Everything that is wrong with the body.
pub fn decode<T: Arguments>(block: &Block, cx: &DecodeContext<'_>) -> Result<Decoded<T>, DecodeErrors> {
    let mut walk = Walk::new(cx, false);
    let slot = walk.top(T::SCHEMA, block);
    match slot.and_then(unboxed) {
        Some(value) if walk.problems.is_empty() => {
            Ok(Decoded { value, sensitive: walk.sensitive, deprecated: walk.deprecated })
        }
        _ => Err(walk.errors(block)),
    }
}

/// Checks the body of a component's block where the exports of other components are not known: everything else is as
/// when it is decoded, and of what is not known the shape is looked at.
///
/// # Errors
/// Everything that is wrong with the body.
pub fn check(schema: &'static Schema, block: &Block, cx: &DecodeContext<'_>) -> Result<(), DecodeErrors> {
    let mut walk = Walk::new(cx, true);
    walk.top(schema, block);
    if walk.problems.is_empty() { Ok(()) } else { Err(walk.errors(block)) }
}

/// A body, and what it belongs to.
struct Place<'a> {
    stmts: &'a [Stmt],
    source: &'a Arc<SourceFile>,
    /// The whole block.
    span: Span,
    /// Where the body stands in the arguments, for what is noted as secret.
    path: &'a str,
}

/// What came of a piece of text: its value, and whether all of it is known. A piece without errors may yet be unknown to
/// a static check.
type Outcome = (Option<Slot>, bool);

const UNKNOWN: Outcome = (None, false);

struct Walk<'a> {
    scope: &'a dyn Scope,
    cx: ValueContext,
    problems: Vec<Problem>,
    sensitive: Sensitive,
    /// What must not show in the messages of rules, which may quote the values that they read.
    secrets: Vec<Arc<str>>,
    deprecated: Vec<String>,
}

impl<'a> Walk<'a> {
    fn new(cx: &DecodeContext<'a>, checking: bool) -> Self {
        Walk {
            scope: cx.scope,
            cx: ValueContext { minimum: cx.minimum, checking },
            problems: Vec::new(),
            sensitive: Sensitive::default(),
            secrets: Vec::new(),
            deprecated: Vec::new(),
        }
    }

    fn top(&mut self, schema: &'static Schema, block: &Block) -> Option<Slot> {
        let place = Place { stmts: &block.body, source: &block.source, span: block.span, path: "" };
        self.body(schema, &[], &place, None).0
    }

    /// The problems. Where nothing was found wrong, and there is yet no value, the table is to blame.
    fn errors(mut self, block: &Block) -> DecodeErrors {
        if self.problems.is_empty() {
            self.problem(&block.source, block.span, "the arguments have no value");
        }
        DecodeErrors(self.problems)
    }

    fn problem(&mut self, source: &Arc<SourceFile>, span: Span, message: impl Into<String>) {
        let diagnostic = Diagnostic::error(source, span, message);
        self.problems.push(Problem { diagnostic, positioned: true, building: false });
    }

    fn body(
        &mut self,
        schema: &'static Schema,
        overrides: Overrides<'_>,
        place: &Place<'_>,
        label: Option<&str>,
    ) -> Outcome {
        let mut frame = Frame::new(schema, overrides);
        if let Some(label) = label {
            frame.set_label(label);
        }
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for stmt in place.stmts {
            if let Stmt::Block(block) = stmt {
                *counts.entry(&block.name).or_default() += 1;
            }
        }
        for stmt in place.stmts {
            match stmt {
                Stmt::Attr(attr) => self.attr_stmt(&mut frame, attr, place.path),
                Stmt::Block(block) => self.block_stmt(&mut frame, block, counts[&*block.name], place.path),
            }
        }

        let mut faults = Vec::new();
        let outcome = frame.finish(Required::Enforced, self.cx.minimum, &mut faults);
        for fault in faults {
            let (span, building) = match &fault {
                Fault::Rule { place: at, within, building, .. } => {
                    let inside = within.as_ref().and_then(|(field, steps)| inside(place.stmts, field, steps));
                    (inside.or(*at).unwrap_or(place.span), *building)
                }
                _ => (place.span, false),
            };
            let diagnostic = Diagnostic::error(place.source, span, self.masked(fault.message()));
            self.problems.push(Problem { diagnostic, positioned: false, building });
        }
        outcome
    }

    fn attr_stmt(&mut self, frame: &mut Frame, attr: &Attr, path: &str) {
        let name = &*attr.name.text;
        let Some((found, state)) = frame.find(name) else {
            let message = format!("unrecognized attribute name {}", quote(name));
            return self.problem(&attr.source, attr.span(), message);
        };
        let FieldKind::Attr { ty, .. } = found.field.kind else {
            let message = format!("{} must be a block, but is used as an attribute", quote(name));
            return self.problem(&attr.source, attr.span(), message);
        };
        if state.written.is_some() {
            let message = format!("attribute {} may only be provided once", quote(name));
            return self.problem(&attr.source, attr.span(), message);
        }
        state.written = Some(attr.span());
        if let Some(refusal) = refusal("attribute", name, found.field.stability, &self.cx) {
            self.problem(&attr.source, attr.span(), refusal);
        }
        if let Some(instead) = found.field.deprecated {
            self.deprecated.push(format!("attribute {} is deprecated: {instead}", quote(name)));
        }
        let (slot, known) = self.value(ty, &attr.source, &attr.value, &field_place(path, name));
        state.slot = slot;
        state.unknown |= !known;
    }

    fn block_stmt(&mut self, frame: &mut Frame, block: &Block, count: usize, path: &str) {
        let name = &*block.name;
        let Some((found, state)) = frame.find(name) else {
            let message = format!("unrecognized block name {}", quote(name));
            return self.problem(&block.source, block.span, message);
        };
        let first = state.written.is_none();
        let (body, defaults, stability, deprecated, group) = match found.field.kind {
            FieldKind::Block { block: ty, defaults, .. } => {
                if first && let Some(message) = miscount(ty.arity, name, count) {
                    self.problem(&block.source, block.span, message);
                    state.unknown = true;
                }
                (ty.body, defaults, found.field.stability, found.field.deprecated, name)
            }
            FieldKind::Group { prefix, group } => {
                let variant = &(group.one_of)().variants[found.variant.unwrap_or_default()];
                let stability = variant.stability.min(found.field.stability);
                let no_defaults: &[(&str, &str)] = &[];
                (variant.body, no_defaults, stability, variant.deprecated.or(found.field.deprecated), prefix)
            }
            _ => {
                let message = format!("{} must be an attribute, but is used as a block", quote(name));
                return self.problem(&block.source, block.span, message);
            }
        };
        state.written.get_or_insert(block.span);
        if let Some(refusal) = refusal("block", name, stability, &self.cx) {
            self.problem(&block.source, Span::new(block.name_span.start, block.open.end), refusal);
        }
        if let Some(instead) = deprecated {
            self.deprecated.push(format!("block {} is deprecated: {instead}", quote(name)));
        }
        let path = block_place(path, group, state.blocks.len());
        let (slot, known) = self.block(&body, defaults, block, &path);
        state.blocks.push((found.variant.unwrap_or_default(), slot));
        state.unknown |= !known;
    }

    fn block(
        &mut self,
        body: &Body,
        defaults: &'static [(&'static str, &'static str)],
        block: &Block,
        path: &str,
    ) -> Outcome {
        let (source, name) = (&block.source, quote(&block.name));
        // The place of what is wrong with a label: from the name to the opening brace.
        let head = Span::new(block.name_span.start, block.open.end);
        match body {
            Body::Struct(schema) => {
                let schema = schema();
                let fits = match (block.label(), schema.label()) {
                    (None, Some(_)) => {
                        self.problem(source, head, format!("block {name} requires non-empty label"));
                        false
                    }
                    (Some(_), None) => {
                        self.problem(source, head, format!("block {name} does not support specifying labels"));
                        false
                    }
                    _ => true,
                };
                let place = Place { stmts: &block.body, source, span: block.span, path };
                let (slot, known) = self.body(schema, &[defaults], &place, block.label());
                (slot, known && fits)
            }
            Body::Map { element, collect, .. } => {
                let mut known = block.label().is_none();
                if !known {
                    self.problem(source, head, format!("block {name} requires empty label"));
                }
                let mut entries: Vec<(&str, Slot)> = Vec::new();
                for stmt in &block.body {
                    match stmt {
                        Stmt::Attr(attr) => {
                            let path = field_place(path, &attr.name.text);
                            let (slot, attr_known) = self.value(element, &attr.source, &attr.value, &path);
                            known &= attr_known;
                            entries.extend(slot.map(|slot| (&*attr.name.text, slot)));
                        }
                        Stmt::Block(inner) => {
                            self.problem(source, inner.span, "nested blocks not supported here");
                            known = false;
                        }
                    }
                }
                (collect(entries), known)
            }
        }
    }

    /// The value of an attribute.
    fn value(&mut self, ty: &'static TypeInfo, source: &Arc<SourceFile>, expr: &Expr, path: &str) -> Outcome {
        let value = if self.cx.checking {
            let (value, errors) = eval::evaluate_all(source, expr, self.scope);
            for error in errors {
                self.problem(source, error.span, error.message);
            }
            value
        } else {
            match eval::evaluate(source, expr, self.scope) {
                Ok(value) => value,
                Err(error) => {
                    self.problem(source, error.span, error.message);
                    return UNKNOWN;
                }
            }
        };
        self.sensitive.note(path, &value);
        secret_texts(&value, false, &mut self.secrets);
        self.convert(ty, source, expr, &value)
    }

    /// Converts the value of an expression.
    fn convert(&mut self, ty: &TypeInfo, source: &Arc<SourceFile>, expr: &Expr, value: &Value) -> Outcome {
        match (ty.decode)(value, &self.cx) {
            Ok(slot) => (Some(slot), true),
            Err(mismatches) => {
                self.mismatches(source, expr, mismatches);
                UNKNOWN
            }
        }
    }

    fn mismatches(&mut self, source: &Arc<SourceFile>, expr: &Expr, mismatches: Mismatches) {
        for Mismatch { kind, mut error } in mismatches.items() {
            let (node, rest) = locate(expr, &error.path);
            let rest = rest.len();
            let message = error.safe_message();
            match (self.cx.checking, kind) {
                (_, MismatchKind::Unknown) => {}
                // Only what the user wrote as an object must be whole: what is computed is not in the reference.
                (true, MismatchKind::Missing) if rest > 0 || !matches!(unwrapped(node), Expr::Object(_)) => {}
                // The object's rules have no place in the reference at run time, and no expression before them.
                (positioned, MismatchKind::Object | MismatchKind::Missing) => {
                    let diagnostic = Diagnostic::error(source, node.span(), self.masked(message));
                    self.problems.push(Problem { diagnostic, positioned, building: false });
                }
                (false, MismatchKind::UnknownField) => {
                    // Where the text does not show the field, it is the object's expression that lacks it.
                    if rest > 0 {
                        error.path.pop();
                    }
                    let EvalError { span, message } = EvalError::locate(&error, source, expr);
                    self.problem(source, span, message);
                }
                // What is wrong lies within something computed, so that its place is a part of the message.
                (checking, MismatchKind::Value) if !checking || rest > 0 => {
                    let EvalError { span, message } = EvalError::locate(&error, source, expr);
                    self.problem(source, span, message);
                }
                (true, MismatchKind::UnknownField) => {
                    if let Some(PathStep::Field(name)) = error.path.pop() {
                        let object = locate(expr, &error.path).0;
                        self.unknown_field(source, object, &name);
                    }
                }
                (_, MismatchKind::Value) => {
                    // The reference words the same differently where it does not evaluate.
                    let message = match message.strip_prefix("should be ") {
                        Some(rest) => format!("expected {rest}"),
                        None => message,
                    };
                    self.problem(source, node.span(), message);
                }
            }
        }
    }

    /// A message of a rule without the texts of secrets.
    fn masked(&self, message: String) -> String {
        // The longest first, because one may be a part of another.
        let mut secrets = self.secrets.clone();
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.iter().fold(message, |message, secret| message.replace(&**secret, MASK))
    }

    /// A field of an object literal that nothing asks for.
    fn unknown_field(&mut self, source: &Arc<SourceFile>, object: &Expr, name: &str) {
        let object = unwrapped(object);
        let span = match object {
            Expr::Object(object) => {
                let field = object.fields.iter().rev().find(|field| *field.name.text == *name);
                field.map(|field| field.name.span.to(field.value.span()))
            }
            _ => None,
        };
        let message = format!("unrecognized attribute name {}", quote(name));
        self.problem(source, span.unwrap_or_else(|| object.span()), message);
    }
}

/// Adds the texts of everything in a value that is to be hidden.
fn secret_texts(value: &Value, within: bool, out: &mut Vec<Arc<str>>) {
    let hidden = within || value.is_masked();
    match &value.data {
        Data::Array(items) if hidden || value.holds_secret() => {
            items.iter().for_each(|item| secret_texts(item, hidden, out));
        }
        Data::Object(fields) if hidden || value.holds_secret() => {
            fields.values().for_each(|field| secret_texts(field, hidden, out));
        }
        Data::String(text) | Data::Secret(text) if hidden && !text.is_empty() => out.push(Arc::clone(text)),
        Data::OptionalSecret(secret) if hidden && !secret.text.is_empty() => out.push(Arc::clone(&secret.text)),
        _ => {}
    }
}

/// The text about a block that stands too often or too seldom.
fn miscount(arity: Arity, name: &str, count: usize) -> Option<String> {
    let name = quote(name);
    match arity {
        Arity::One | Arity::Optional if count > 1 => Some(format!("block {name} may only be specified once")),
        Arity::Exactly(exactly) if count != exactly => {
            Some(format!("block {name} must be specified exactly {exactly} times, but was specified {count} times"))
        }
        _ => None,
    }
}

/// The place that steps lead to from a field of a body, as far as the text shows it.
fn inside(stmts: &[Stmt], field: &str, steps: &[CheckStep]) -> Option<Span> {
    let attr = stmts.iter().find_map(|stmt| match stmt {
        Stmt::Attr(attr) if *attr.name.text == *field => Some(attr),
        _ => None,
    });
    if let Some(attr) = attr {
        return Some(inside_value(&attr.value, steps));
    }
    let (number, rest) = match steps {
        [CheckStep::Block(number), rest @ ..] => (*number, rest),
        _ => (0, steps),
    };
    let mut blocks = stmts.iter().filter_map(|stmt| match stmt {
        Stmt::Block(block) if *block.name == *field => Some(block),
        _ => None,
    });
    let block = blocks.nth(number)?;
    let inner = match rest {
        [CheckStep::Field(field), rest @ ..] => inside(&block.body, field, rest),
        _ => None,
    };
    Some(inner.unwrap_or(block.span))
}

/// The place that steps lead to from a value.
fn inside_value(expr: &Expr, steps: &[CheckStep]) -> Span {
    let expr = unwrapped(expr);
    match (expr, steps) {
        (Expr::Array(array), [CheckStep::Element(index), rest @ ..]) => {
            array.elements.get(*index).map_or(expr.span(), |element| inside_value(element, rest))
        }
        (Expr::Literal(literal), [CheckStep::Byte(byte)]) if literal.kind == LiteralKind::String => {
            let part = part_of_literal(&literal.text, *byte);
            let at = |offset: usize| literal.span.start + offset as u32;
            Span::new(at(part.start), at(part.end))
        }
        _ => expr.span(),
    }
}

/// An expression without the parentheses around it.
fn unwrapped(expr: &Expr) -> &Expr {
    let mut inner = expr;
    while let Expr::Paren(paren) = inner {
        inner = &paren.inner;
    }
    inner
}

/// The smallest part of an expression that a path leads to, and the rest of the path.
fn locate<'e, 'p>(expr: &'e Expr, path: &'p [PathStep]) -> (&'e Expr, &'p [PathStep]) {
    let (mut node, mut path) = (expr, path);
    while let [step, rest @ ..] = path {
        let part = match (unwrapped(node), step) {
            (Expr::Array(array), PathStep::Index(index)) => array.elements.get(*index),
            (Expr::Object(object), PathStep::Field(name)) => {
                let field = object.fields.iter().rev().find(|field| field.name.text == *name);
                field.map(|field| &field.value)
            }
            _ => None,
        };
        let Some(part) = part else { break };
        (node, path) = (part, rest);
    }
    (node, path)
}
