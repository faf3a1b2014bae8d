//! Reads statements, conditions and expressions.

use crate::ast::{Arg, At, Call, Cond, Expr, Field, Key, Kind, Path, Statement};
use crate::error::Fault;
use crate::token::{Token, tokens};

/// How deep a statement may nest: parentheses, calls, lists, maps and keys within each other.
pub const NESTING_MAX: usize = 64;

/// The longest statement, in bytes.
pub const SOURCE_BYTES_MAX: usize = 1 << 20;

/// The most operators that follow each other in a calculation without parentheses.
pub const OPERATORS_MAX: usize = 500;

/// `editor(...) where condition`.
pub(crate) fn statement(source: &str) -> Result<Statement, Fault> {
    let mut parser = Parser::new(source)?;
    let at = parser.at();
    let name = match parser.peek() {
        Token::Name(name) if parser.is_sign_behind("(") => name.clone(),
        other => {
            return Err(Fault::new(at, format!("a function such as set(...) is expected, not {}", other.describe())));
        }
    };
    if !name.starts_with(|first: char| first.is_ascii_lowercase()) {
        let what = format!(
            "a statement begins with a function that changes something, whose name begins in lower case, not {name}"
        );
        return Err(Fault::new(at, what));
    }
    parser.next();
    let editor = parser.call(name, at)?;
    if parser.is_sign("[") {
        let what = format!("only paths and functions that give a value can be indexed, not {}", editor.name);
        return Err(Fault::new(parser.at(), what));
    }
    let mut condition = None;
    if parser.is_name("where") {
        parser.next();
        condition = Some(parser.condition()?);
    }
    parser.end(if condition.is_some() { "`and`, `or`" } else { "`where`" })?;
    Ok(Statement { editor, condition })
}

/// A condition by itself.
pub(crate) fn condition(source: &str) -> Result<Cond, Fault> {
    let mut parser = Parser::new(source)?;
    let condition = parser.condition()?;
    parser.end("`and`, `or`")?;
    Ok(condition)
}

/// An expression by itself.
pub(crate) fn value(source: &str) -> Result<Expr, Fault> {
    let mut parser = Parser::new(source)?;
    let value = parser.value()?;
    parser.end("an operator")?;
    Ok(value)
}

struct Parser {
    tokens: Vec<(Token, usize, usize)>,
    position: usize,
    depth: usize,
}

/// What stands in parentheses can be either, which only shows when it was read.
enum Node {
    Value(Expr),
    Bool(Cond, At),
}

const KEYWORDS: &[&str] = &["and", "or", "not", "nil", "true", "false"];
const COMPARISONS: &[&str] = &["==", "!=", "<=", ">=", "<", ">"];

impl Parser {
    fn new(source: &str) -> Result<Self, Fault> {
        if source.len() > SOURCE_BYTES_MAX {
            return Err(Fault::new(0, format!("it is longer than {SOURCE_BYTES_MAX} bytes")));
        }
        Ok(Parser { tokens: tokens(source)?, position: 0, depth: 0 })
    }

    fn peek(&self) -> &Token {
        // The last token is the end, which is never passed.
        &self.tokens[self.position].0
    }

    fn at(&self) -> At {
        self.tokens[self.position].1
    }

    fn next(&mut self) {
        if self.position + 1 < self.tokens.len() {
            self.position += 1;
        }
    }

    fn is_sign(&self, sign: &str) -> bool {
        matches!(self.peek(), Token::Sign(found) if *found == sign)
    }

    fn is_sign_behind(&self, sign: &str) -> bool {
        matches!(self.tokens.get(self.position + 1), Some((Token::Sign(found), _, _)) if *found == sign)
    }

    fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Token::Name(found) if found == name)
    }

    fn take_sign(&mut self, sign: &str) -> bool {
        let is = self.is_sign(sign);
        if is {
            self.next();
        }
        is
    }

    fn one_of(&mut self, signs: &[&'static str]) -> Option<&'static str> {
        let Token::Sign(found) = self.peek() else { return None };
        let found = *found;
        signs.contains(&found).then(|| {
            self.next();
            found
        })
    }

    fn unexpected<T>(&self, expected: &str) -> Result<T, Fault> {
        if self.is_sign("=>") {
            return Err(Fault::new(self.at(), "lambda expressions are not enabled"));
        }
        Err(Fault::new(self.at(), format!("{expected} is expected, not {}", self.peek().describe())))
    }

    fn expect(&mut self, sign: &'static str) -> Result<(), Fault> {
        if self.take_sign(sign) { Ok(()) } else { self.unexpected(&format!("`{sign}`")) }
    }

    fn end(&self, or: &str) -> Result<(), Fault> {
        match self.peek() {
            Token::End => Ok(()),
            _ => self.unexpected(&format!("{or} or the end")),
        }
    }

    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<T, Fault> {
        if self.depth >= NESTING_MAX {
            return Err(Fault::new(self.at(), format!("this nests more than {NESTING_MAX} deep")));
        }
        self.depth += 1;
        let read = read(self);
        self.depth -= 1;
        read
    }

    fn condition(&mut self) -> Result<Cond, Fault> {
        let at = self.at();
        match self.or()? {
            Node::Bool(condition, _) => Ok(condition),
            Node::Value(value) => as_condition(value, at),
        }
    }

    fn or(&mut self) -> Result<Node, Fault> {
        self.chain("or", Self::and, Cond::Or)
    }

    fn and(&mut self) -> Result<Node, Fault> {
        self.chain("and", Self::bool_value, Cond::And)
    }

    fn chain(
        &mut self,
        word: &str,
        read: fn(&mut Self) -> Result<Node, Fault>,
        join: fn(Vec<Cond>) -> Cond,
    ) -> Result<Node, Fault> {
        let at = self.at();
        let first = read(self)?;
        if !self.is_name(word) {
            return Ok(first);
        }
        let mut all = vec![first.into_condition(at)?];
        while self.is_name(word) {
            self.next();
            let at = self.at();
            all.push(read(self)?.into_condition(at)?);
        }
        Ok(Node::Bool(join(all), at))
    }

    fn bool_value(&mut self) -> Result<Node, Fault> {
        let at = self.at();
        if self.is_name("not") {
            self.next();
            let inner_at = self.at();
            let inner = self.comparison()?.into_condition(inner_at)?;
            return Ok(Node::Bool(Cond::Not(Box::new(inner)), at));
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Node, Fault> {
        let at = self.at();
        let left = self.sum(true)?;
        let sign_at = self.at();
        let Some(sign) = self.one_of(COMPARISONS) else { return Ok(left) };
        let left = left.into_value(sign_at)?;
        let right_at = self.at();
        let right = self.sum(true)?.into_value(right_at)?;
        if self.one_of(COMPARISONS).is_some() {
            return Err(Fault::new(
                self.tokens[self.position - 1].1,
                "comparisons cannot be chained: join them by `and`",
            ));
        }
        Ok(Node::Bool(Cond::Compare(sign, left, right), at))
    }

    /// A value, as an argument is.
    fn value(&mut self) -> Result<Expr, Fault> {
        let at = self.at();
        self.sum(false)?.into_value(at)
    }

    fn sum(&mut self, in_condition: bool) -> Result<Node, Fault> {
        self.math(in_condition, &["+", "-"], Self::product)
    }

    fn product(&mut self, in_condition: bool) -> Result<Node, Fault> {
        self.math(in_condition, &["*", "/"], Self::factor)
    }

    fn math(
        &mut self,
        in_condition: bool,
        signs: &[&'static str],
        read: fn(&mut Self, bool) -> Result<Node, Fault>,
    ) -> Result<Node, Fault> {
        let at = self.at();
        let mut left = read(self, in_condition)?;
        for _ in 0..=OPERATORS_MAX {
            let sign_at = self.at();
            let Some(sign) = self.one_of(signs) else { return Ok(left) };
            let operand = number(left.into_value(sign_at)?)?;
            let right_at = self.at();
            let right = number(read(self, in_condition)?.into_value(right_at)?)?;
            let sign = sign.chars().next().unwrap_or('+');
            left = Node::Value(Expr { at, kind: Kind::Math(sign, Box::new(operand), Box::new(right)) });
        }
        Err(Fault::new(self.at(), format!("more than {OPERATORS_MAX} operators follow each other: use parentheses")))
    }

    fn factor(&mut self, in_condition: bool) -> Result<Node, Fault> {
        let at = self.at();
        let Some(sign) = self.one_of(&["+", "-"]) else { return self.primary(in_condition) };
        let value_at = self.at();
        let value = number(self.primary(in_condition)?.into_value(value_at)?)?;
        Ok(Node::Value(if sign == "-" { Expr { at, kind: Kind::Negative(Box::new(value)) } } else { value }))
    }

    fn primary(&mut self, in_condition: bool) -> Result<Node, Fault> {
        let at = self.at();
        let kind = match self.peek().clone() {
            Token::Text(text) => self.past(Kind::Text(text)),
            Token::Bytes(bytes) => self.past(Kind::Bytes(bytes)),
            Token::Int(value) => self.past(Kind::Int(value)),
            Token::Float(value) => self.past(Kind::Float(value)),
            Token::Name(name) => match name.as_str() {
                "nil" => self.past(Kind::Nil),
                "true" => self.past(Kind::Bool(true)),
                "false" => self.past(Kind::Bool(false)),
                "and" | "or" | "not" => return self.unexpected("a value"),
                _ if self.is_sign_behind("(") => {
                    if !name.starts_with(|first: char| first.is_ascii_uppercase()) {
                        let what = format!("a function that gives a value has a name with a capital, not {name}");
                        return Err(Fault::new(at, what));
                    }
                    self.next();
                    let call = self.deeper(|parser| parser.call(name, at))?;
                    let keys = self.keys()?;
                    Kind::Call(call, keys)
                }
                _ if name.starts_with(|first: char| first.is_ascii_uppercase()) => self.past(Kind::Symbol(name)),
                _ => Kind::Path(self.path()?),
            },
            Token::Sign("(") => {
                self.next();
                let inner = self.deeper(|parser| if in_condition { parser.or() } else { parser.sum(false) })?;
                self.expect(")")?;
                return Ok(inner);
            }
            Token::Sign("[") => {
                self.next();
                let values = self.deeper(|parser| parser.list("]", Self::value))?;
                Kind::List(values)
            }
            Token::Sign("{") => {
                self.next();
                let pairs = self.deeper(|parser| parser.list("}", Self::pair))?;
                Kind::Map(pairs)
            }
            _ => return self.unexpected("a value"),
        };
        Ok(Node::Value(Expr { at, kind }))
    }

    fn past(&mut self, kind: Kind) -> Kind {
        self.next();
        kind
    }

    fn pair(&mut self) -> Result<(Vec<u8>, Expr), Fault> {
        let Token::Text(key) = self.peek().clone() else { return self.unexpected("a key, which is a string,") };
        self.next();
        self.expect(":")?;
        Ok((key, self.value()?))
    }

    /// Values between commas up to a sign.
    fn list<T>(&mut self, end: &'static str, read: fn(&mut Self) -> Result<T, Fault>) -> Result<Vec<T>, Fault> {
        let mut values = Vec::new();
        loop {
            if self.take_sign(end) {
                return Ok(values);
            }
            values.push(read(self)?);
            if !self.take_sign(",") && !self.is_sign(end) {
                return self.unexpected(&format!("`,` or `{end}`"));
            }
        }
    }

    /// The arguments of a function whose name was read.
    fn call(&mut self, name: String, call_at: At) -> Result<Call, Fault> {
        self.expect("(")?;
        let mut args: Vec<Arg> = Vec::new();
        if self.take_sign(")") {
            return Ok(Call { at: call_at, name, args });
        }
        loop {
            let at = self.at();
            let mut arg_name = None;
            if let Token::Name(name) = self.peek().clone()
                && self.is_sign_behind("=")
            {
                if !name.starts_with(|first: char| first.is_ascii_lowercase()) {
                    return Err(Fault::new(at, format!("the name of an argument begins in lower case, not {name}")));
                }
                self.next();
                self.next();
                arg_name = Some(name);
            }
            if arg_name.is_none() && args.iter().any(|arg| arg.name.is_some()) {
                return Err(Fault::new(at, "behind an argument with a name, all have one"));
            }
            args.push(Arg { at, name: arg_name, value: self.value()? });
            if self.take_sign(")") {
                return Ok(Call { at: call_at, name, args });
            }
            if !self.take_sign(",") {
                return self.unexpected("`,` or `)`");
            }
        }
    }

    fn path(&mut self) -> Result<Path, Fault> {
        let path_at = self.at();
        let mut fields = Vec::new();
        loop {
            let at = self.at();
            let Token::Name(name) = self.peek().clone() else { return self.unexpected("the name of a field") };
            let lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
            if KEYWORDS.contains(&name.as_str()) || !name.bytes().all(lower) {
                return Err(Fault::new(at, format!("fields have names in lower case, and {name} is none")));
            }
            self.next();
            let keys = self.keys()?;
            fields.push(Field { at, name, keys });
            if !self.take_sign(".") {
                return Ok(Path { at: path_at, fields });
            }
        }
    }

    fn keys(&mut self) -> Result<Vec<Key>, Fault> {
        let mut keys = Vec::new();
        while self.is_sign("[") {
            let at = self.at();
            self.next();
            let value = self.deeper(Self::value)?;
            let fits = matches!(
                value.kind,
                Kind::Text(_)
                    | Kind::Int(_)
                    | Kind::Float(_)
                    | Kind::Path(_)
                    | Kind::Call(..)
                    | Kind::Math(..)
                    | Kind::Negative(_)
            );
            if !fits {
                return Err(Fault::new(value.at, "a key is a string, a whole number, a path or what a function gives"));
            }
            self.expect("]")?;
            if keys.len() >= NESTING_MAX {
                return Err(Fault::new(at, format!("there are more than {NESTING_MAX} keys")));
            }
            keys.push(Key { at, value });
        }
        Ok(keys)
    }
}

/// Refuses what cannot be calculated with, whatever its value.
fn number(value: Expr) -> Result<Expr, Fault> {
    match value.kind {
        Kind::Int(_) | Kind::Float(_) | Kind::Path(_) | Kind::Call(..) | Kind::Math(..) | Kind::Negative(_) => {
            Ok(value)
        }
        _ => Err(Fault::new(value.at, "this cannot be calculated with: a number, a path or a function is expected")),
    }
}

/// What stands where a condition is expected.
fn as_condition(value: Expr, at: At) -> Result<Cond, Fault> {
    match value.kind {
        Kind::Bool(value) => Ok(Cond::Const(value)),
        Kind::Call(..) => Ok(Cond::Converter(value)),
        Kind::Path(path) => Err(Fault::new(at, format!("a path is no condition: write {path} == true"))),
        _ => Err(Fault::new(at, "a value is no condition: compare it with something")),
    }
}

impl Node {
    fn into_condition(self, at: At) -> Result<Cond, Fault> {
        match self {
            Node::Bool(condition, _) => Ok(condition),
            Node::Value(value) => as_condition(value, at),
        }
    }

    fn into_value(self, _: At) -> Result<Expr, Fault> {
        match self {
            Node::Value(value) => Ok(value),
            Node::Bool(_, at) => Err(Fault::new(at, "this is a condition, where a value is expected")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn conditions_bind_as_they_should() {
        for (source, expected) in [
            ("a == 1", "a == 1"),
            ("a == 1 or b == 2 and not c == 3", "a == 1 or b == 2 and not c == 3"),
            ("(a == 1 or b == 2) and c == 3", "(a == 1 or b == 2) and c == 3"),
            ("not (a == 1 and true)", "not (a == 1 and true)"),
            ("(((a))) + 2 * (b - 1) > -c / 4", "(a + (2 * (b - 1))) > ((-c) / 4)"),
            ("1 - 2 - 3 == 4", "((1 - 2) - 3) == 4"),
            ("IsMatch(a[\"k\"][0], \"x\")", "IsMatch(a[\"k\"][0], \"x\")"),
            ("true == a", "true == a"),
            ("((true))", "true"),
            ("Len([1, 2.5, nil]) != 0x0a", "Len([1, 2.5e0, nil]) != 0x0a"),
            ("Split(a, \",\")[1] == \"x\"", "Split(a, \",\")[1] == \"x\""),
            ("a==STATUS_CODE_OK", "a == STATUS_CODE_OK"),
            ("a.b[\"x\"].c == {\"k\": [true], \"l\": nil,}", "a.b[\"x\"].c == {\"k\": [true], \"l\": nil}"),
        ] {
            assert_eq!(condition(source).unwrap().to_string(), expected, "{source}");
        }
        assert_eq!(
            statement("set(a, format=\"%s\", f=SHA256) where a != nil").unwrap().to_string(),
            "set(a, format = \"%s\", f = SHA256) where a != nil"
        );
    }

    #[test]
    fn mistakes_are_told_at_their_place() {
        for (source, at, what) in [
            ("Set(a, 1)", 0, "lower case"),
            ("set(a, 1) whre a == 1", 10, "`where` or the end"),
            ("set(a, 1)[0]", 9, "only paths and functions"),
            ("set(a, b(1))", 7, "with a capital"),
            ("set(a, 1", 8, "`,` or `)`"),
            ("set(a, (x) => x)", 11, "lambda"),
            ("set(x = 1, 2)", 11, "behind an argument with a name"),
            ("set(a, 1) where a", 16, "write a == true"),
            ("set(a, 1) where 1", 16, "compare it"),
            ("set(a, 1) where a == 1 == 2", 23, "chained"),
            ("set(a, \"x\" + 1)", 7, "calculated"),
            ("set(a, (b == 1))", 10, "`)`"),
            ("set(a, 1) where (b == 1) + 1 == 2", 17, "this is a condition"),
            ("set(aB, 1)", 4, "lower case"),
            ("set(a[true], 1)", 6, "a key is"),
            ("set(a, 1) where", 15, "a value is expected, not the end"),
            ("", 0, "set(...)"),
            ("set(a, {1: 2})", 8, "a key, which is a string"),
        ] {
            let fault = statement(source).unwrap_err();
            assert!(fault.what.contains(what), "{source}: {}", fault.what);
            assert_eq!(fault.at, at, "{source}: {}", fault.what);
        }
    }

    #[test]
    fn deep_nesting_is_refused_and_costs_little() {
        for (open, close) in [("(", ")"), ("A(", ")"), ("[", "]"), ("{\"\":", "}"), ("a[", "]")] {
            let within = format!("{}a{} == 1", open.repeat(60), close.repeat(60));
            let nested = condition(&within);
            assert!(nested.is_ok(), "{open}: {nested:?}");
            for depth in [NESTING_MAX + 1, 10_000] {
                let fault = condition(&format!("{}a{} == 1", open.repeat(depth), close.repeat(depth))).unwrap_err();
                assert!(fault.what.contains("deep"), "{open}: {}", fault.what);
            }
        }
    }

    fn name() -> impl Strategy<Value = String> {
        prop_oneof![Just("a".to_owned()), Just("status".to_owned()), "[b-m][a-z0-9_]{0,5}".prop_map(|name| name + "_")]
    }

    fn expr() -> impl Strategy<Value = Expr> {
        let plain = |kind| Expr { at: 0, kind };
        let leaf = prop_oneof![
            Just(Kind::Nil),
            any::<bool>().prop_map(Kind::Bool),
            proptest::collection::vec(any::<u8>(), 0..6).prop_map(Kind::Text),
            proptest::collection::vec(any::<u8>(), 1..4).prop_map(Kind::Bytes),
            (0..=i64::MAX).prop_map(Kind::Int),
            any::<f64>().prop_map(|value| Kind::Float(if value.is_finite() { value.abs() } else { 1.0 })),
            "[A-Z][A-Z0-9_]{0,5}".prop_map(Kind::Symbol),
            name().prop_map(|name| Kind::Path(Path { at: 0, fields: vec![Field { at: 0, name, keys: vec![] }] })),
        ]
        .prop_map(plain);
        leaf.prop_recursive(4, 24, 3, move |inner| {
            let number = inner.clone().prop_map(|value| match number(value) {
                Ok(value) => value,
                Err(_) => Expr { at: 0, kind: Kind::Int(1) },
            });
            let keys = proptest::collection::vec(number.clone().prop_map(|value| Key { at: 0, value }), 0..3);
            let fields = proptest::collection::vec(
                (name(), keys.clone()).prop_map(|(name, keys)| Field { at: 0, name, keys }),
                1..3,
            );
            let args =
                proptest::collection::vec(inner.clone().prop_map(|value| Arg { at: 0, name: None, value }), 0..3);
            prop_oneof![
                fields.prop_map(|fields| Kind::Path(Path { at: 0, fields })),
                ("[A-Z][a-zA-Z]{1,5}", args, keys)
                    .prop_map(|(name, args, keys)| Kind::Call(Call { at: 0, name, args }, keys)),
                (prop_oneof![Just('+'), Just('-'), Just('*'), Just('/')], number.clone(), number.clone())
                    .prop_map(|(sign, left, right)| Kind::Math(sign, Box::new(left), Box::new(right))),
                number.prop_map(|value| Kind::Negative(Box::new(value))),
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Kind::List),
                proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..3), inner), 0..3)
                    .prop_map(Kind::Map),
            ]
            .prop_map(plain)
        })
    }

    proptest! {
        #[test]
        fn no_text_panics(source in prop_oneof![
            any::<String>(),
            "[a-zA-Z0-9_.(),\\[\\]{}=<>!\"\\\\+*/ -]{0,60}",
            proptest::collection::vec(prop_oneof![
                Just("set("), Just(")"), Just("("), Just("where "), Just("not "), Just("and "), Just("or "), Just("a"),
                Just("[\"k\"]"), Just("=="), Just("1"), Just("1.5"), Just("A("), Just("-"), Just("["), Just("]"), Just(","),
                Just("nil"), Just("true"), Just("{"), Just("}"), Just(":"), Just("\"x\""),
            ], 0..40).prop_map(|parts| parts.concat()),
        ]) {
            for fault in [statement(&source).err(), condition(&source).err(), value(&source).err()].into_iter().flatten() {
                prop_assert!(fault.at <= source.len());
            }
        }

        #[test]
        fn what_is_printed_reads_the_same(value in expr()) {
            let printed = value.to_string();
            let read = super::value(&printed).map_err(|fault| TestCaseError::fail(format!("{printed}: {}", fault.what)))?;
            prop_assert_eq!(read.to_string(), printed.clone());
            let condition = format!("not {printed} == 1 and (true or 2 < {printed})");
            prop_assert_eq!(super::condition(&condition).unwrap().to_string(), condition);
        }
    }
}
