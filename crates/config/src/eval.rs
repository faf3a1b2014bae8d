//! Evaluation of expressions.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use corten_syntax::{Diagnostic, Expr, Literal, LiteralKind, SourceFile, Span, expression_text, quote};

use crate::error::{PathStep, ValueError};
use crate::limits::EXPRESSION_DEPTH_MAX;
use crate::literal;
use crate::number::Number;
use crate::ops::{self, Side};
use crate::stdlib::{self, CallError};
use crate::unknown::{self, IndexError, Part};
use crate::value::{Data, Object, Type, Value};

/// What the names in an expression stand for. What a scope does not know is looked for in the standard library.
pub trait Scope {
    /// The value of a name, if the scope knows it.
    fn lookup(&self, name: &str) -> Option<Value>;
}

/// A scope without names.
impl Scope for () {
    fn lookup(&self, _: &str) -> Option<Value> {
        None
    }
}

/// The fields of an object, as names.
impl Scope for Object {
    fn lookup(&self, name: &str) -> Option<Value> {
        self.get(name).cloned()
    }
}

impl<S: Scope + ?Sized> Scope for &S {
    fn lookup(&self, name: &str) -> Option<Value> {
        (**self).lookup(name)
    }
}

impl<S: Scope + ?Sized> Scope for Arc<S> {
    fn lookup(&self, name: &str) -> Option<Value> {
        (**self).lookup(name)
    }
}

/// A scope within another: what the inner one does not know, the outer one may.
#[derive(Clone, Debug)]
pub struct Nested<I, O> {
    /// Asked first.
    pub inner: I,
    /// Asked for what the inner one does not know.
    pub outer: O,
}

impl<I: Scope, O: Scope> Scope for Nested<I, O> {
    fn lookup(&self, name: &str) -> Option<Value> {
        self.inner.lookup(name).or_else(|| self.outer.lookup(name))
    }
}

/// An expression that has no value, or whose value cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvalError {
    /// The part of the expression that is at fault.
    pub span: Span,
    /// The whole message: the text of that part, the way from there to the value at fault, what is wrong with it.
    pub message: String,
}

impl EvalError {
    /// Turns a fault of an expression's value into one of the expression.
    ///
    /// Follows the path of the fault through the array and object literals of the expression, so that the part at
    /// fault is as small as the text allows, and appends to its text the rest of the path. A value `null` has its
    /// place too, unlike in the reference.
    pub fn locate(error: &ValueError, source: &SourceFile, expr: &Expr) -> Self {
        let (mut node, mut path) = (expr, error.path.as_slice());
        while let [step, rest @ ..] = path {
            let Some(part) = part(node, step) else { break };
            (node, path) = (part, rest);
        }
        let mut message = expression_text(source, node);
        message.extend(path.iter().map(PathStep::to_string));
        message.push(' ');
        message.push_str(&error.safe_message());
        EvalError { span: node.span(), message }
    }

    /// The diagnostic for it.
    pub fn to_diagnostic(&self, source: &Arc<SourceFile>) -> Diagnostic {
        Diagnostic::error(source, self.span, self.message.clone())
    }
}

impl fmt::Display for EvalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for EvalError {}

/// The part of a literal that a step leads to.
fn part<'a>(expr: &'a Expr, step: &PathStep) -> Option<&'a Expr> {
    match (expr, step) {
        (Expr::Paren(paren), _) => part(&paren.inner, step),
        (Expr::Array(array), PathStep::Index(index)) => array.elements.get(*index),
        (Expr::Object(object), PathStep::Field(name)) => {
            // Of several fields with one name the last counts.
            object.fields.iter().rev().find(|field| field.name.text == *name).map(|field| &field.value)
        }
        _ => None,
    }
}

/// Evaluates an expression. Secrets mark everything that is made of them: see [`Value::sensitive`].
pub fn evaluate(source: &SourceFile, expr: &Expr, scope: &dyn Scope) -> Result<Value, EvalError> {
    Evaluator { source, scope, errors: None }.expression(expr, 0)
}

/// Evaluates an expression as far as it goes: what is wrong in one of its parts is noted, and that part is
/// [unknown](crate::unknown).
pub fn evaluate_all(source: &SourceFile, expr: &Expr, scope: &dyn Scope) -> (Value, Vec<EvalError>) {
    let evaluator = Evaluator { source, scope, errors: Some(RefCell::default()) };
    let value = evaluator.part(expr, 0).unwrap_or_else(|_| Value::unknown());
    (value, evaluator.errors.map(RefCell::into_inner).unwrap_or_default())
}

struct Evaluator<'a> {
    source: &'a SourceFile,
    scope: &'a dyn Scope,
    /// Where errors go so that the rest is evaluated; without it the first one ends the evaluation.
    errors: Option<RefCell<Vec<EvalError>>>,
}

impl Evaluator<'_> {
    /// Walks down to the leftmost operand without recursion, because chains like `a + b + c` are as deep as they are
    /// long, and applies the operators on the way back.
    fn expression(&self, expr: &Expr, depth: usize) -> Result<Value, EvalError> {
        if depth > EXPRESSION_DEPTH_MAX {
            let message = format!("expression is nested deeper than {EXPRESSION_DEPTH_MAX} levels");
            return Err(EvalError { span: expr.span(), message });
        }
        let mut pending = Vec::new();
        let mut at = expr;
        loop {
            let next = match at {
                Expr::Paren(paren) => {
                    at = &paren.inner;
                    continue;
                }
                Expr::Binary(binary) => &binary.left,
                Expr::Access(access) => &access.value,
                Expr::Index(index) => &index.value,
                Expr::Call(call) => &call.function,
                _ => break,
            };
            pending.push(at);
            at = next;
        }
        let mut value = self.leaf(at, depth)?;
        while let Some(node) = pending.pop() {
            value = self.apply(node, value, depth)?;
        }
        Ok(value)
    }

    /// A part of an expression whose errors say nothing about the others.
    fn part(&self, expr: &Expr, depth: usize) -> Result<Value, EvalError> {
        match (self.expression(expr, depth), &self.errors) {
            (Err(error), Some(errors)) => {
                errors.borrow_mut().push(error);
                Ok(Value::unknown())
            }
            (result, _) => result,
        }
    }

    fn leaf(&self, expr: &Expr, depth: usize) -> Result<Value, EvalError> {
        match expr {
            Expr::Literal(literal) => self.literal(literal),
            Expr::Identifier(name) => self
                .scope
                .lookup(&name.text)
                .or_else(|| stdlib::lookup(&name.text))
                .ok_or_else(|| self.message(name.span, format!("identifier {} does not exist", quote(&name.text)))),
            Expr::Unary(unary) => {
                let value = self.expression(&unary.value, depth + 1)?;
                ops::unary(unary.op, &value).map_err(|error| self.fault(&error, &unary.value))
            }
            Expr::Array(array) => {
                let items: Result<Vec<Value>, EvalError> =
                    array.elements.iter().map(|element| self.part(element, depth + 1)).collect();
                Ok(Value::array(items?))
            }
            Expr::Object(object) => {
                let mut fields = Object::new();
                for field in &object.fields {
                    fields.insert(Arc::clone(&field.name.text), self.part(&field.value, depth + 1)?);
                }
                Ok(Value::object(fields))
            }
            // The caller has walked through these.
            Expr::Paren(_) | Expr::Binary(_) | Expr::Access(_) | Expr::Index(_) | Expr::Call(_) => {
                self.expression(expr, depth + 1)
            }
        }
    }

    /// Applies a node to the value of its leftmost operand.
    fn apply(&self, node: &Expr, value: Value, depth: usize) -> Result<Value, EvalError> {
        match node {
            Expr::Binary(binary) => {
                let right = self.part(&binary.right, depth + 1)?;
                ops::binary(&value, binary.op, &right).map_err(|(side, error)| {
                    self.fault(&error, if side == Side::Left { &binary.left } else { &binary.right })
                })
            }
            Expr::Access(access) => self.access(access, &value),
            Expr::Index(index) => {
                let place = self.part(&index.index, depth + 1)?;
                self.index(index, &value, &place)
            }
            Expr::Call(call) => self.call(call, &value, depth),
            _ => Ok(value),
        }
    }

    fn literal(&self, literal: &Literal) -> Result<Value, EvalError> {
        let value = match literal.kind {
            LiteralKind::Null => Some(Value::NULL),
            LiteralKind::Bool => Some(Value::bool(&*literal.text == "true")),
            LiteralKind::Number => literal::parse_number_literal(&literal.text).map(Value::from),
            LiteralKind::Float => literal::parse_float_text(&literal.text).map(Value::float),
            LiteralKind::String => literal::unquote(&literal.text).map(Value::string),
        };
        value.ok_or_else(|| match literal.kind {
            LiteralKind::Number | LiteralKind::Float => {
                let message = format!("strconv.ParseFloat: parsing {}: value out of range", quote(&literal.text));
                self.message(literal.span, message)
            }
            _ => self.message(literal.span, "invalid syntax".to_owned()),
        })
    }

    fn access(&self, access: &corten_syntax::Access, value: &Value) -> Result<Value, EvalError> {
        let name = &access.name;
        let missing = || self.message(name.span, format!("field {} does not exist", quote(&name.text)));
        match unknown::field(value, &name.text) {
            None => {}
            Some(Part::Is(field)) => return Ok(field),
            Some(Part::Missing) => return Err(missing()),
            Some(Part::None(Type::Capsule)) => return Err(self.not_a_container(value, &access.value)),
            Some(Part::None(ty)) => return Err(self.fault(&unknown::no_field(&name.text, ty, value), &access.value)),
        }
        match value.ty() {
            Type::Object | Type::Capsule => match value.to_object() {
                Some(fields) => match fields.get(&name.text) {
                    Some(field) => Ok(field.clone().marked(value.sensitive)),
                    None => Err(missing()),
                },
                None => Err(self.not_a_container(value, &access.value)),
            },
            ty => Err(self.fault(&unknown::no_field(&name.text, ty, value), &access.value)),
        }
    }

    fn index(&self, node: &corten_syntax::Index, value: &Value, place: &Value) -> Result<Value, EvalError> {
        if let Some(result) = unknown::index(value, place) {
            return result.map_err(|error| match error {
                IndexError::Container(error) => self.fault(&error, &node.value),
                IndexError::NotAContainer => self.not_a_container(value, &node.value),
                IndexError::Place(error) => self.fault(&error, &node.index),
            });
        }
        // What is chosen by a secret says something about it.
        let sensitive = place.holds_secret();
        match value.ty() {
            Type::Array => {
                let Data::Number(number) = place.data else {
                    return Err(self.fault(&ValueError::expected(Type::Number, place), &node.index));
                };
                let (at, len) = (number.to_i64(), value.len().unwrap_or(0));
                usize::try_from(at).ok().and_then(|at| value.index(at)).map(|item| item.marked(sensitive)).ok_or_else(
                    || {
                        let message = format!("index {at} is out of range of array with length {len}");
                        let found = Value::from(Number::Int(at)).marked(sensitive);
                        self.fault(&ValueError::new(&found, message), &node.index)
                    },
                )
            }
            Type::Object | Type::Capsule => {
                let Some(fields) = value.to_object() else { return Err(self.not_a_container(value, &node.value)) };
                let Data::String(name) = &place.data else {
                    return Err(self.fault(&ValueError::expected(Type::String, place), &node.index));
                };
                let field = fields.get(name).cloned().unwrap_or_default();
                Ok(field.marked(value.sensitive || sensitive))
            }
            ty => {
                let message = format!("expected object or array, got {ty}");
                Err(self.fault(&ValueError::new(value, message), &node.value))
            }
        }
    }

    fn call(&self, call: &corten_syntax::Call, value: &Value, depth: usize) -> Result<Value, EvalError> {
        if let Some(ty) = unknown::known_type(value)
            && ty != Type::Function
        {
            let message = format!("should be {}, got {ty}", Type::Function);
            return Err(self.fault(&ValueError::new(value, message), &call.function));
        }
        let args: Result<Vec<Value>, EvalError> = call.args.iter().map(|arg| self.part(arg, depth + 1)).collect();
        let args = args?;
        let Data::Function(function) = value.data else { return Ok(Value::unknown()) };
        function.invoke(&args).map_err(|error| match error {
            CallError::Argument { index, error } => self.fault(&error, call.args.get(index).unwrap_or(&call.function)),
            CallError::Failed(message) => self.fault(&ValueError::new(value, message), &call.function),
            CallError::Message(message) => self.message(call.function.span(), message),
        })
    }

    fn not_a_container(&self, value: &Value, expr: &Expr) -> EvalError {
        let message = format!("expected object or array or a capsule convertible to an object, got {}", value.ty());
        self.fault(&ValueError::new(value, message), expr)
    }

    fn fault(&self, error: &ValueError, expr: &Expr) -> EvalError {
        EvalError::locate(error, self.source, expr)
    }

    fn message(&self, span: Span, message: String) -> EvalError {
        EvalError { span, message }
    }
}

#[cfg(test)]
mod tests {
    use corten_syntax::parse_expression;

    use super::*;

    fn eval(text: &str, scope: &dyn Scope) -> Result<Value, Diagnostic> {
        let parsed = parse_expression("", text);
        assert!(!parsed.diagnostics.has_errors(), "{text}: {}", parsed.diagnostics);

        evaluate(&parsed.source, &parsed.expr, scope).map_err(|error| error.to_diagnostic(&parsed.source))
    }

    /// The reference's name for the type of a value.
    fn go_type(value: &Value) -> &'static str {
        match &value.data {
            Data::Null => "<nil>",
            Data::Bool(_) => "bool",
            Data::Number(Number::Int(_)) => "int",
            Data::Number(Number::Uint(value)) if i64::try_from(*value).is_ok() => "int",
            Data::Number(Number::Uint(_)) => "uint64",
            Data::Number(Number::Float(_)) => "float64",
            Data::String(_) => "string",
            Data::Bytes(_) | Data::Array(_) => "[]interface {}",
            Data::Object(_) => "map[string]interface {}",
            Data::Function(_) => "func",
            Data::Secret(_) => crate::value::SECRET_TYPE,
            Data::OptionalSecret(_) => crate::value::OPTIONAL_SECRET_TYPE,
            Data::Capsule(capsule) => capsule.type_name(),
        }
    }

    /// What the reference reports, in the form in which it was recorded.
    fn recorded_form(diagnostic: &Diagnostic) -> String {
        let place = |place: Option<corten_syntax::Position>| place.map_or("-".to_owned(), |place| place.to_string());
        let (start, end) = (place(diagnostic.start), place(diagnostic.end));
        format!("{diagnostic} [start {start} end {end} value \"\"]")
    }

    #[test]
    fn expressions_evaluate_as_recorded_from_the_reference() {
        let cases: serde_json::Value = serde_json::from_str(include_str!("../tests/data/eval.json")).unwrap();
        // Go keeps one copy of `true` and of `false`, so the reference, which finds the place of a value by its address,
        // takes one boolean for another. Here the operand that comes first is told, as for all other types.
        let exceptions = [
            ("true / true", "1:1: true should be one of [number] for binop /, got bool"),
            ("false + false", "1:1: false should be one of [number string capsule] for binop +, got bool"),
            (
                r#"-1 != 010 < true || .5 + "a" > "é" / {}"#,
                "1:1: -1 != 010 should be one of [number string] for binop <, got bool",
            ),
        ];
        let mut failures = Vec::new();
        for case in cases.as_array().unwrap() {
            let text = |key: &str| case[key].as_str();
            let expr = text("expr").unwrap();
            let got = eval(expr, &());
            let same = match (&got, text("error")) {
                (Ok(value), None) => {
                    text("type") == Some(go_type(value)) && text("value") == Some(value.to_string().as_str())
                }
                (Err(diagnostic), Some(error)) => match error.strip_prefix("-: ") {
                    None if recorded_form(diagnostic) == error => true,
                    None => exceptions.contains(&(expr, diagnostic.to_string().as_str())),
                    // The reference knows no place for what is wrong with `null`, which leaves its user without one.
                    // Here the place and the text of the expression are told, and the rest is the same.
                    Some(rest) => {
                        let message = rest.split(" [start").next().unwrap();
                        diagnostic.start.is_some() && diagnostic.message.ends_with(message)
                    }
                },
                _ => false,
            };
            if !same {
                failures.push(format!(
                    "{expr}\n  recorded: {case}\n  got: {:?}",
                    got.map(|value| value.to_string()).map_err(|e| recorded_form(&e))
                ));
            }
        }
        assert!(
            failures.is_empty(),
            "{} of {}:\n{}",
            failures.len(),
            cases.as_array().unwrap().len(),
            failures.join("\n")
        );
    }

    fn scope() -> Object {
        let object = |fields: Vec<(&str, Value)>| {
            Value::object(fields.into_iter().map(|(name, value)| (Arc::from(name), value)).collect::<Object>())
        };
        let items = Value::array(vec![Value::from("a"), Value::bool(true), Value::NULL]);
        Object::from([
            (Arc::from("secret"), Value::secret("hush")),
            (Arc::from("osecret"), Value::optional_secret("shh", true)),
            (Arc::from("opt"), Value::optional_secret("pub", false)),
            (Arc::from("obj"), object(vec![("a", Value::int(1)), ("items", items)])),
        ])
    }

    /// The value, or the error, without regard to marks.
    fn plain(text: &str) -> Result<String, String> {
        let value = eval(text, &scope()).map_err(|diagnostic| diagnostic.to_string())?;
        Ok(Value::new(value.data).to_string())
    }

    #[test]
    fn the_standard_library_does_as_recorded_from_the_reference() {
        for data in [include_str!("../tests/data/format.json"), include_str!("../tests/data/stdlib.json")] {
            let cases: serde_json::Value = serde_json::from_str(data).unwrap();
            assert!(cases.as_array().unwrap().len() > 250);
            for case in cases.as_array().unwrap() {
                let expected = case["value"].as_str().map(str::to_owned).ok_or_else(|| case["error"].as_str());
                let got = plain(case["expr"].as_str().unwrap());
                assert_eq!(
                    got.as_ref().map_err(|error| Some(error.as_str())),
                    expected.as_ref().map_err(|e| *e),
                    "{case}"
                );
            }
        }
    }

    #[test]
    fn the_inner_scope_hides_the_outer_one_and_both_hide_the_standard_library() {
        let name = |name: &str, value: i64| Object::from([(Arc::from(name), Value::int(value))]);
        let nested = Nested { inner: name("a", 1), outer: Nested { inner: name("b", 2), outer: name("a", 3) } };
        assert_eq!(eval("a * 10 + b", &nested).unwrap(), Value::int(12));
        assert_eq!(eval("string", &name("string", 7)).unwrap(), Value::int(7));
        assert_eq!(eval("string.join([\"x\"], \"\")", &nested).unwrap(), Value::from("x"));
    }

    #[test]
    fn a_fault_is_told_at_the_smallest_part_of_the_text_that_holds_it() {
        let cases = [
            ("string.join([1, true], \"\")", "1:17: true should be string, got bool"),
            ("string.join(([1, (true)]), \"\")", "1:18: (true) should be string, got bool"),
            ("string.join(obj.items, \"\")", "1:13: obj.items[1] should be string, got bool"),
            ("array.group_by([{a = 1, a = true}], \"a\", true)", "1:29: true should be string, got bool"),
            ("array.group_by([obj], \"items\", true)", "1:17: obj.items should be string, got array"),
            ("array.combine_maps([1], [], [\"a\"])", "1:21: 1 should be object, got number"),
            ("array.combine_maps([], [], [\"a\", 1])", "1:34: 1 should be string, got number"),
            ("array.combine_maps([{a = []}], [], [\"a\"])", "1:26: [] combine_maps: cannot match values of type array"),
            ("array.combine_maps([], [])", "1:1: combine_maps: expected 3 or 4 arguments, got 2"),
            ("null + 1", "1:1: null should be one of [number string capsule] for binop +, got null"),
            ("obj.items[2].x", "1:1: obj.items[2] cannot access field \"x\" on value of type null"),
            ("obj.items[0 - 1]", "1:11: 0 - 1 index -1 is out of range of array with length 3"),
            ("obj[1]", "1:5: 1 should be string, got number"),
            ("secret.a", "1:1: secret expected object or array or a capsule convertible to an object, got capsule"),
            ("obj()", "1:1: obj should be function, got object"),
            ("1e999", "1:1: strconv.ParseFloat: parsing \"1e999\": value out of range"),
            (
                "convert.nonsensitive(encoding.from_base64(\"aGk=\"))",
                "1:22: encoding.from_base64(\"aGk=\") should be capsule, got array",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(plain(text), Err(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_made_of_a_secret_is_hidden_until_it_is_declared_harmless() {
        let hidden = [
            "secret",
            "secret + \"x\"",
            "\"x\" + osecret",
            "string.format(\"%s\", secret)",
            "string.format(\"%s\", {a = [secret]})",
            "string.format(\"%s\", secret) + \"x\"",
            "encoding.to_json({a = secret})",
            "encoding.from_json(string.format(\"[1, %q]\", secret))",
            "encoding.from_json(string.format(\"[1, %q]\", secret))[1]",
            "string.split(string.format(\"%s\", secret), \"\")[0]",
            "string.to_upper(string.format(\"%s\", osecret))",
            "secret == \"hush\"",
            "coalesce(secret, \"x\")",
            "array.concat([secret], [1])[0]",
            "[\"a\", \"b\"][encoding.from_json(string.format(\"%d\", 0) + string.format(\"%.0s\", secret))]",
            "{a = secret}.a",
            "{a = 1}[string.format(\"%.0sa\", secret)]",
            "-encoding.from_json(string.format(\"%.0s1\", secret))",
        ];
        for text in hidden {
            let value = eval(text, &scope()).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(value.to_string(), crate::value::MASK, "{text}");
            assert!(!format!("{value:?} {}", crate::render::json(&value)).contains("hush"), "{text}");
        }
        let open = [
            ("convert.nonsensitive(secret)", "\"hush\""),
            ("convert.nonsensitive(string.format(\"%s!\", secret))", "\"hush!\""),
            ("opt + \"x\"", "\"pubx\""),
            ("array.concat([secret], [1])[1]", "1"),
            ("[secret, 1]", "[(secret), 1]"),
            ("array.combine_maps([{a = 1, b = secret}], [{a = 1}], [\"a\"])", "[{\n\ta = 1,\n\tb = (secret),\n}]"),
            ("array.group_by([{a = \"x\", b = secret}], \"a\", true)[0][\"a\"]", "\"x\""),
        ];
        for (text, expected) in open {
            assert_eq!(eval(text, &scope()).unwrap().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn no_secret_gets_into_the_text_of_an_error() {
        let failing = [
            "encoding.from_json(string.format(\"%s\", secret))",
            "encoding.from_yaml(string.format(\"a: b: %s\", secret))",
            "json_path(\"{}\", string.format(\"$.%s[\", secret))",
            "encoding.url_decode(string.format(\"%%%s\", secret))",
            "encoding.from_base64(string.format(\"!%s\", secret))",
            "string.join(secret, \"\")",
            "string.trim(secret, \"\")",
            "secret + 1",
            "[1][string.format(\"%s\", secret)]",
        ];
        for text in failing {
            let error = eval(text, &scope()).unwrap_err().to_string();
            assert!(!error.contains("hush") && !error.contains("'h'"), "{text}: {error}");
        }
    }

    #[test]
    fn expressions_as_deep_as_the_parser_allows_are_evaluated() {
        let depth = corten_syntax::DEPTH_MAX - 8;
        let cases = [
            format!("{}1{}", "[".repeat(depth), "]".repeat(depth)),
            format!("{}1{}", "(".repeat(depth), ")".repeat(depth)),
            format!("{}1{}", "{a = ".repeat(depth), "}".repeat(depth)),
            format!("{}1", "-".repeat(depth)),
            format!("{}1", "2 ^ ".repeat(depth)),
            format!("{}1{}", "coalesce(0, ".repeat(depth), ")".repeat(depth)),
            format!("1{}", " + 1".repeat(depth)),
            format!("{}0{}", "[0][".repeat(depth), "]".repeat(depth)),
        ];
        for text in cases {
            let value = eval(&text, &()).unwrap();
            assert_eq!(value, value.clone());
            assert!(!value.holds_secret() && !value.to_string().is_empty() && !crate::render::json(&value).is_empty());
        }
    }

    #[test]
    fn rows_as_long_as_the_parser_allows_are_evaluated_on_a_small_stack() {
        let work = || {
            let length = corten_syntax::CHAIN_MAX;
            let sum = eval(&format!("1{}", " + 1".repeat(length)), &()).unwrap();
            assert_eq!(sum, Value::int(length as i64 + 1));
            let unknown = Object::from([(Arc::from("x"), Value::unknown())]);
            for text in [format!("x{}", ".x".repeat(length)), format!("x{}", " + x".repeat(length))] {
                assert!(eval(&text, &unknown).unwrap().is_unknown());
            }
            let error = eval(&format!("1{} + true", " + 1".repeat(length - 1)), &()).unwrap_err().to_string();
            assert!(error.contains(": true should be one of [number string capsule]"), "{error}");
        };
        std::thread::Builder::new().stack_size(768 * 1024).spawn(work).unwrap().join().unwrap();
    }

    /// A capsule that may present itself as an object.
    #[derive(Debug)]
    struct Target(Option<Object>);

    impl crate::value::Capsule for Target {
        fn type_name(&self) -> &'static str {
            "test.Target"
        }

        fn equals(&self, other: &dyn crate::value::Capsule) -> bool {
            other.as_any().downcast_ref::<Target>().is_some_and(|other| self.0 == other.0)
        }

        fn as_object(&self) -> Option<Object> {
            self.0.clone()
        }

        fn as_any(&self) -> &dyn std::any::Any {
            self
        }
    }

    #[test]
    fn a_capsule_that_can_present_itself_as_an_object_is_used_as_one() {
        let target = |fields: Option<&[(&str, &str)]>| {
            let fields = fields.map(|fields| fields.iter().map(|(k, v)| (Arc::from(*k), Value::from(*v))).collect());
            Value::capsule(Arc::new(Target(fields)))
        };
        let scope = Object::from([
            (Arc::from("t"), target(Some(&[("a", "x"), ("b", "y")]))),
            (Arc::from("u"), target(Some(&[("a", "x"), ("b", "y")]))),
            (Arc::from("empty"), target(Some(&[]))),
            (Arc::from("opaque"), target(None)),
        ]);
        let good = [
            ("t.a + t[\"b\"]", "\"xy\""),
            ("t[\"zz\"]", "null"),
            ("t == u", "true"),
            ("t == empty", "false"),
            ("coalesce(empty, \"d\")", "\"d\""),
            ("coalesce(opaque, \"d\")", "capsule(\"test.Target\")"),
            ("array.combine_maps([t], [{a = \"x\", c = 1}], [\"a\"])[0].c", "1"),
            ("array.group_by([t], \"a\", true)[0].items[0].b", "\"y\""),
            ("[t]", "[{\n\ta = \"x\",\n\tb = \"y\",\n}]"),
            ("encoding.to_json({t = t})", "\"{\\\"t\\\":{\\\"a\\\":\\\"x\\\",\\\"b\\\":\\\"y\\\"}}\""),
        ];
        for (text, expected) in good {
            assert_eq!(eval(text, &scope).unwrap().to_string(), expected, "{text}");
        }
        let bad = [
            ("t.zz", "1:3: field \"zz\" does not exist"),
            ("opaque.a", "1:1: opaque expected object or array or a capsule convertible to an object, got capsule"),
            ("t + t", "1:1: t could not perform binop + for unknown types lhs capsule rhs capsule"),
            ("t < t", "1:1: t should be one of [number string] for binop <, got capsule"),
            ("string.trim_space(t)", "1:19: t should be string, got capsule"),
            ("encoding.to_json({t = opaque})", "1:1: encoding.to_json json: unsupported type: test.Target"),
        ];
        for (text, expected) in bad {
            assert_eq!(eval(text, &scope).unwrap_err().to_string(), expected, "{text}");
        }
    }
}
