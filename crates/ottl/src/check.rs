//! Resolves names, checks arguments and compiles.

use corten_golang::parse_float;
use corten_otlp::Arena;

use crate::ast::{self, Cond, Expr, Visitor};
use crate::context::{ALL, Context};
use crate::error::{Fault, OttlError, Part};
use crate::functions::{self, Function, Kind, Param};
use crate::parse;
use crate::path::{self, Prefix};
use crate::program::{Arg, Call, Condition, Conditions, Ex, Expression, Key, Path, Program, Statement, Test};
use crate::value::{Comparison, Const};

/// Compiles statements of a context. Paths may begin with its name, or with what the item is part of.
///
/// # Errors
///
/// What is wrong with each of the statements.
pub fn compile_statements<S: AsRef<str>>(context: Context, statements: &[S]) -> Result<Program, Vec<OttlError>> {
    Checker { context, prefix: Prefix::Optional }.statements(statements)
}

/// Compiles conditions of a context. Paths are as in [`compile_statements`].
///
/// # Errors
///
/// What is wrong with each of the conditions.
pub fn compile_conditions<S: AsRef<str>>(context: Context, conditions: &[S]) -> Result<Conditions, Vec<OttlError>> {
    Checker { context, prefix: Prefix::Optional }.conditions(conditions)
}

/// Compiles an expression of a context. Paths are as in [`compile_statements`].
///
/// # Errors
///
/// What is wrong with it.
pub fn compile_value(context: Context, source: &str) -> Result<Expression, OttlError> {
    let checker = Checker { context, prefix: Prefix::Optional };
    let compiled = parse::value(source).and_then(|value| checker.value(&value));
    let ex = compiled.map_err(|fault| OttlError::new(Part::Value, 0, source, fault))?;
    Ok(Expression { context, source: source.to_owned(), ex })
}

/// Finds what statements and conditions are about by their paths, which all have a prefix, and compiles them.
///
/// # Errors
///
/// What is wrong with each of them, or that nothing tells which of the `candidates` they are about.
pub fn infer_statements<S: AsRef<str>, C: AsRef<str>>(
    candidates: &[Context],
    statements: &[S],
    conditions: &[C],
) -> Result<(Program, Conditions), Vec<OttlError>> {
    let mut hints = Hints::default();
    let mut errors = Vec::new();
    for (index, source) in statements.iter().map(AsRef::as_ref).enumerate() {
        hints.source = (Part::Statement, index);
        match parse::statement(source) {
            Ok(statement) => statement.visit(&mut hints),
            Err(fault) => errors.push(OttlError::new(Part::Statement, index, source, fault)),
        }
    }
    hints.conditions(conditions, &mut errors);
    let source = |(part, index): (Part, usize)| match part {
        Part::Statement => statements[index].as_ref(),
        _ => conditions[index].as_ref(),
    };
    let context = hints.context(candidates, &mut errors, source, statements.first().map(AsRef::as_ref));
    let (Some(context), true) = (context, errors.is_empty()) else { return Err(errors) };
    let checker = Checker { context, prefix: Prefix::Required };
    match (checker.statements(statements), checker.conditions(conditions)) {
        (Ok(program), Ok(conditions)) => Ok((program, conditions)),
        (program, conditions) => {
            let errors = program.err().into_iter().flatten().chain(conditions.err().into_iter().flatten());
            Err(errors.collect())
        }
    }
}

/// As [`infer_statements`], of conditions alone.
///
/// # Errors
///
/// As there.
pub fn infer_conditions<C: AsRef<str>>(candidates: &[Context], conditions: &[C]) -> Result<Conditions, Vec<OttlError>> {
    let (mut hints, mut errors) = (Hints::default(), Vec::new());
    hints.conditions(conditions, &mut errors);
    let source = |(_, index): (Part, usize)| conditions[index].as_ref();
    let context = hints.context(candidates, &mut errors, source, conditions.first().map(AsRef::as_ref));
    let (Some(context), true) = (context, errors.is_empty()) else { return Err(errors) };
    Checker { context, prefix: Prefix::Required }.conditions(conditions)
}

/// What tells which context statements are of.
struct Hints {
    source: (Part, usize),
    /// The first fields of paths that have more.
    prefixes: Vec<String>,
    functions: Vec<(String, ast::At, (Part, usize))>,
    symbols: Vec<(String, ast::At, (Part, usize))>,
}

impl Default for Hints {
    fn default() -> Self {
        Hints { source: (Part::Statement, 0), prefixes: Vec::new(), functions: Vec::new(), symbols: Vec::new() }
    }
}

impl Visitor for Hints {
    fn path(&mut self, path: &ast::Path) {
        if let [first, _, ..] = &path.fields[..] {
            self.prefixes.push(first.name.clone());
        }
    }

    fn function(&mut self, call: &ast::Call) {
        self.functions.push((call.name.clone(), call.at, self.source));
    }

    fn symbol(&mut self, at: ast::At, name: &str) {
        self.symbols.push((name.to_owned(), at, self.source));
    }
}

impl Hints {
    fn conditions<C: AsRef<str>>(&mut self, conditions: &[C], errors: &mut Vec<OttlError>) {
        for (index, source) in conditions.iter().map(AsRef::as_ref).enumerate() {
            self.source = (Part::Condition, index);
            match parse::condition(source) {
                Ok(condition) => condition.visit(self),
                Err(fault) => errors.push(OttlError::new(Part::Condition, index, source, fault)),
            }
        }
    }

    /// The most specific of the contexts that paths begin with, or one below it, which has all functions and symbols.
    fn context<'a>(
        &self,
        candidates: &[Context],
        errors: &mut Vec<OttlError>,
        source: impl Fn((Part, usize)) -> &'a str,
        first: Option<&str>,
    ) -> Option<Context> {
        if !errors.is_empty() {
            return None;
        }
        let named = self.prefixes.iter().filter_map(|name| Context::of_name(name).filter(|of| of.name() == name));
        let Some(inferred) = named.min_by_key(|context| context.priority()) else {
            let names: Vec<&str> = candidates.iter().map(|context| context.name()).collect();
            let what = format!(
                "nothing tells what this is about: begin at least one path with one of {}, or set the context",
                names.join(", ")
            );
            let part = if first.is_some() { self.source.0 } else { Part::Statement };
            errors.push(OttlError::new(part, 0, first.unwrap_or_default(), Fault::new(0, what)));
            return None;
        };
        let mut lower: Vec<Context> = ALL
            .into_iter()
            .filter(|of| *of != inferred && of.levels().iter().any(|(name, _)| *name == inferred.name()))
            .collect();
        lower.sort_by_key(|context| context.priority());
        let tried: Vec<Context> =
            std::iter::once(inferred).chain(lower).filter(|context| candidates.contains(context)).collect();
        if let Some(fits) = tried.iter().find(|context| self.missing(**context).is_none()) {
            return Some(*fits);
        }
        let best = tried.first().copied();
        let (at, of, what) = match best.and_then(|context| self.missing(context)) {
            Some(missing) => missing,
            None => {
                let names: Vec<&str> = candidates.iter().map(|context| context.name()).collect();
                let what = format!("paths of {inferred} cannot be used here, only those of {}", names.join(", "));
                (0, self.source, what)
            }
        };
        errors.push(OttlError::new(of.0, of.1, source(of), Fault::new(at, what)));
        None
    }

    /// What a context does not have.
    fn missing(&self, context: Context) -> Option<(ast::At, (Part, usize), String)> {
        for (name, at, source) in &self.functions {
            if functions::find(name, context).is_none() {
                return Some((*at, *source, unknown_function(name, context)));
            }
        }
        for (name, at, source) in &self.symbols {
            if context.symbol(name).is_none() && functions::find(name, context).is_none() {
                return Some((*at, *source, unknown_symbol(name, context)));
            }
        }
        None
    }
}

fn unknown_symbol(name: &str, context: Context) -> String {
    match ALL.into_iter().find(|of| of.symbol(name).is_some()) {
        Some(of) => format!("{context} does not have {name}, but {of} has"),
        None => format!("{name} is not known"),
    }
}

fn unknown_function(name: &str, context: Context) -> String {
    if functions::LAMBDA_FUNCTIONS.contains(&name) {
        return format!("{name} needs lambda expressions, which are not enabled");
    }
    if let Some(of) = ALL.into_iter().find(|of| functions::find(name, *of).is_some()) {
        return format!("{context} does not have the function {name}, but {of} has");
    }
    let like = functions::names(context).find(|known| known.eq_ignore_ascii_case(name));
    let like = like.map(|known| format!(": {known} is meant?")).unwrap_or_default();
    format!("there is no function {name}{like}")
}

#[derive(Clone, Copy)]
struct Checker {
    context: Context,
    prefix: Prefix,
}

impl Checker {
    fn statements<S: AsRef<str>>(self, sources: &[S]) -> Result<Program, Vec<OttlError>> {
        let statements = each(Part::Statement, sources, |source| {
            let statement = parse::statement(source)?;
            Ok(Statement {
                source: source.to_owned(),
                editor: self.call(&statement.editor)?,
                condition: match &statement.condition {
                    Some(condition) => self.test(condition)?,
                    None => Test::Const(true),
                },
            })
        })?;
        Ok(Program { context: self.context, statements })
    }

    fn conditions<S: AsRef<str>>(self, sources: &[S]) -> Result<Conditions, Vec<OttlError>> {
        let conditions = each(Part::Condition, sources, |source| {
            Ok(Condition { source: source.to_owned(), test: self.test(&parse::condition(source)?)? })
        })?;
        Ok(Conditions { context: self.context, conditions })
    }

    fn test(self, condition: &Cond) -> Result<Test, Fault> {
        Ok(match condition {
            Cond::Const(value) => Test::Const(*value),
            Cond::Compare(sign, left, right) => {
                let (left, right) = (self.value(left)?, self.value(right)?);
                let comparison = Comparison::of_sign(sign);
                match (left.constant(), right.constant()) {
                    (Some(a), Some(b)) => {
                        let mut arena = Arena::default();
                        let (a, b) = (a.val(&mut arena), b.val(&mut arena));
                        Test::Const(a.compare(comparison, &b, &arena))
                    }
                    _ => Test::Compare(comparison, left, right),
                }
            }
            Cond::Converter(value) => Test::Converter(self.value(value)?),
            Cond::Not(inner) => match self.test(inner)? {
                Test::Const(value) => Test::Const(!value),
                inner => Test::Not(Box::new(inner)),
            },
            Cond::And(all) => self.joined(all, true, Test::And)?,
            Cond::Or(all) => self.joined(all, false, Test::Or)?,
        })
    }

    /// Conditions of which those that are always `neutral` do not count, and one that is always the opposite decides.
    fn joined(self, all: &[Cond], neutral: bool, join: fn(Vec<Test>) -> Test) -> Result<Test, Fault> {
        let mut tests = all.iter().map(|one| self.test(one)).collect::<Result<Vec<_>, _>>()?;
        if tests.iter().any(|test| matches!(test, Test::Const(value) if *value != neutral)) {
            return Ok(Test::Const(!neutral));
        }
        tests.retain(|test| !matches!(test, Test::Const(_)));
        Ok(match tests.len() {
            0 => Test::Const(neutral),
            1 => tests.remove(0),
            _ => join(tests),
        })
    }

    fn value(self, value: &Expr) -> Result<Ex, Fault> {
        Ok(match &value.kind {
            ast::Kind::Nil => Ex::Const(Const::Nil),
            ast::Kind::Bool(value) => Ex::Const(Const::Bool(*value)),
            ast::Kind::Text(text) => Ex::Const(Const::Text(text.as_slice().into())),
            ast::Kind::Bytes(bytes) => Ex::Const(Const::Bytes(bytes.as_slice().into())),
            ast::Kind::Int(value) => Ex::Const(Const::Int(*value)),
            ast::Kind::Float(value) => Ex::Const(Const::Double(*value)),
            ast::Kind::Symbol(name) => match self.context.symbol(name) {
                Some(value) => Ex::Const(Const::Int(value)),
                None if functions::find(name, self.context).is_some() => {
                    return Err(Fault::new(value.at, format!("the function {name} has to be called: {name}(...)")));
                }
                None => return Err(Fault::new(value.at, unknown_symbol(name, self.context))),
            },
            ast::Kind::Path(path) => Ex::Path(self.path(path)?),
            ast::Kind::Call(call, keys) => Ex::Call(Box::new(self.call(call)?), self.keys(keys)?),
            ast::Kind::Math(sign, left, right) => {
                Ex::Math(*sign, Box::new(self.value(left)?), Box::new(self.value(right)?))
            }
            ast::Kind::Negative(inner) => match self.value(inner)? {
                Ex::Const(Const::Int(value)) => Ex::Const(Const::Int(value.wrapping_neg())),
                Ex::Const(Const::Double(value)) => Ex::Const(Const::Double(-value)),
                inner => Ex::Negative(Box::new(inner)),
            },
            ast::Kind::List(values) => {
                let values = values.iter().map(|value| self.value(value)).collect::<Result<Vec<_>, _>>()?;
                match values.iter().map(|value| value.constant().cloned()).collect::<Option<Vec<_>>>() {
                    Some(values) => Ex::Const(Const::List(values)),
                    None => Ex::List(values),
                }
            }
            ast::Kind::Map(pairs) => {
                let mut compiled: Vec<(Box<[u8]>, Ex)> = Vec::new();
                for (key, value) in pairs {
                    let value = self.value(value)?;
                    // Of equal keys the last one counts.
                    compiled.retain(|(known, _)| **known != **key);
                    compiled.push((key.as_slice().into(), value));
                }
                let constant = |(key, value): &(Box<[u8]>, Ex)| Some((key.clone(), value.constant()?.clone()));
                match compiled.iter().map(constant).collect::<Option<Vec<_>>>() {
                    Some(pairs) => Ex::Const(Const::Map(pairs)),
                    None => Ex::Map(compiled),
                }
            }
        })
    }

    fn path(self, path: &ast::Path) -> Result<Path, Fault> {
        let leaf = path::resolve(path, self.context, self.prefix)?;
        let keys = path.fields.last().map(|field| &*field.keys).unwrap_or_default();
        Ok(Path { leaf, keys: self.keys(keys)? })
    }

    fn keys(self, keys: &[ast::Key]) -> Result<Vec<Key>, Fault> {
        let key = |key: &ast::Key| {
            Ok(match self.value(&key.value)? {
                Ex::Const(Const::Text(text)) => Key::Text(text),
                Ex::Const(Const::Int(index)) => Key::Int(index),
                Ex::Const(other) => {
                    let what = format!("a key is a string or a whole number, not {}", other.type_name());
                    return Err(Fault::new(key.value.at, what));
                }
                ex => Key::Ex(ex),
            })
        };
        keys.iter().map(key).collect()
    }

    fn call(self, call: &ast::Call) -> Result<Call, Fault> {
        let function = functions::find(&call.name, self.context);
        let Some(function) = function else {
            return Err(Fault::new(call.at, unknown_function(&call.name, self.context)));
        };
        let params = function.params;
        let required = params.iter().filter(|param| !param.optional).count();
        if call.args.len() < required || call.args.len() > params.len() {
            let expected =
                if required == params.len() { required.to_string() } else { format!("{required} to {}", params.len()) };
            let what = format!(
                "{} takes {expected} arguments, {}, and there are {}",
                call.name,
                signature(function),
                call.args.len()
            );
            let at = call.args.get(params.len()).map_or(call.at, |arg| arg.at);
            return Err(Fault::new(at, what));
        }
        let mut args: Vec<Option<(ast::At, Arg)>> = params.iter().map(|_| None).collect();
        for (position, arg) in call.args.iter().enumerate() {
            let at = match &arg.name {
                None => position,
                Some(name) => params.iter().position(|param| same_name(param.name, name)).ok_or_else(|| {
                    Fault::new(arg.at, format!("{} has no argument {name}: it is {}", call.name, signature(function)))
                })?,
            };
            if args[at].is_some() {
                return Err(Fault::new(arg.at, format!("{} is given twice", params[at].name)));
            }
            args[at] = Some((arg.value.at, self.arg(&params[at], &arg.value)?));
        }
        if let Some(at) = (0..params.len()).find(|at| args[*at].is_none() && !params[*at].optional) {
            return Err(Fault::new(call.at, format!("{} needs the argument {}", call.name, params[at].name)));
        }
        let places: Vec<ast::At> = args.iter().map(|arg| arg.as_ref().map_or(call.at, |(at, _)| *at)).collect();
        let args: Vec<Option<Arg>> = args.into_iter().map(|arg| arg.map(|(_, arg)| arg)).collect();
        let prepared = (function.prepare)(&args);
        let prepared = prepared.map_err(|(at, what)| Fault::new(places.get(at).copied().unwrap_or(call.at), what))?;
        Ok(Call { function, args, prepared })
    }

    fn arg(self, param: &Param, value: &Expr) -> Result<Arg, Fault> {
        let must = |what: &str| Fault::new(value.at, format!("{} must be {what}", param.name));
        match param.kind {
            Kind::Place | Kind::MapPlace | Kind::ListPlace => match &value.kind {
                ast::Kind::Path(path) => Ok(Arg::One(Ex::Path(self.path(path)?))),
                _ => Err(must("a path")),
            },
            Kind::ConstText => match &value.kind {
                ast::Kind::Text(_) => Ok(Arg::One(self.value(value)?)),
                _ => Err(must("a string, written as such")),
            },
            Kind::ConstInt => match &value.kind {
                ast::Kind::Int(_) | ast::Kind::Negative(_) => match self.value(value)? {
                    ex @ Ex::Const(Const::Int(_)) => Ok(Arg::One(ex)),
                    _ => Err(must("a whole number, written as such")),
                },
                _ => Err(must("a whole number, written as such")),
            },
            Kind::ConstDouble => match self.value(value)? {
                ex @ Ex::Const(Const::Double(_)) => Ok(Arg::One(ex)),
                _ => Err(must("a number with a point, written as such")),
            },
            Kind::ConstBool => match &value.kind {
                ast::Kind::Bool(_) => Ok(Arg::One(self.value(value)?)),
                _ => Err(must("true or false")),
            },
            Kind::Anys | Kind::Texts | Kind::TextLikes | Kind::ConstTexts | Kind::ConstDoubles => {
                let ast::Kind::List(values) = &value.kind else { return Err(must("a list: [...]")) };
                let of = match param.kind {
                    Kind::Texts => Kind::Text,
                    Kind::TextLikes => Kind::TextLike,
                    Kind::ConstTexts => Kind::ConstText,
                    Kind::ConstDoubles => Kind::ConstDouble,
                    _ => Kind::Any,
                };
                let element = Param { kind: of, ..*param };
                let compiled = values.iter().map(|value| match self.arg(&element, value)? {
                    Arg::One(ex) => Ok(ex),
                    _ => Err(must("a list of values")),
                });
                Ok(Arg::Many(compiled.collect::<Result<_, _>>()?))
            }
            Kind::Function => {
                let ast::Kind::Symbol(name) = &value.kind else { return Err(must("the name of a function")) };
                let function = functions::find(name, self.context)
                    .ok_or_else(|| Fault::new(value.at, unknown_function(name, self.context)))?;
                match function.params {
                    [Param { kind: Kind::Text | Kind::TextLike, .. }] => Ok(Arg::Function(function)),
                    _ => Err(Fault::new(value.at, format!("{name} is no function of one string"))),
                }
            }
            kind => {
                let ex = self.value(value)?;
                if let Some(constant) = ex.constant()
                    && let Some(expected) = mismatch(kind, constant)
                {
                    let what = format!("{} must be {expected}, not {}", param.name, constant.type_name());
                    return Err(Fault::new(value.at, what));
                }
                Ok(Arg::One(ex))
            }
        }
    }
}

/// What is expected where a value that is written in the statement never fits.
fn mismatch(kind: Kind, value: &Const) -> Option<&'static str> {
    let (fits, expected) = match kind {
        Kind::Text => (matches!(value, Const::Text(_)), "a string"),
        Kind::Int => (matches!(value, Const::Int(_)), "a whole number"),
        Kind::Map => (matches!(value, Const::Map(_)), "a map"),
        Kind::List => (matches!(value, Const::List(_)), "a list"),
        Kind::Time => (false, "a time, as Time(...) and Now() give it"),
        Kind::Duration => (false, "a duration, as Duration(...) gives it"),
        Kind::Bool => (matches!(value, Const::Bool(_)), "true or false"),
        Kind::Double => (matches!(value, Const::Double(_)), "a number with a point"),
        Kind::DoubleLike => match value {
            Const::Text(text) => (parse_float(text).is_ok(), "a number"),
            value => (!matches!(value, Const::Bytes(_) | Const::List(_) | Const::Map(_)), "a number"),
        },
        Kind::IntLike => (!matches!(value, Const::Bytes(_) | Const::List(_) | Const::Map(_)), "a whole number"),
        Kind::BoolLike => match value {
            Const::Text(text) => (functions::parse_bool(text).is_some(), "true or false"),
            value => (!matches!(value, Const::Bytes(_) | Const::List(_) | Const::Map(_)), "true or false"),
        },
        Kind::BytesLike => (!matches!(value, Const::List(_) | Const::Map(_)), "a string or bytes"),
        _ => (true, ""),
    };
    (!fits).then_some(expected)
}

/// Compiles each, and tells of all mistakes.
fn each<S: AsRef<str>, T>(
    part: Part,
    sources: &[S],
    compile: impl Fn(&str) -> Result<T, Fault>,
) -> Result<Vec<T>, Vec<OttlError>> {
    let (mut compiled, mut errors) = (Vec::with_capacity(sources.len()), Vec::new());
    for (index, source) in sources.iter().map(AsRef::as_ref).enumerate() {
        match compile(source) {
            Ok(one) => compiled.push(one),
            Err(fault) => errors.push(OttlError::new(part, index, source, fault)),
        }
    }
    if errors.is_empty() { Ok(compiled) } else { Err(errors) }
}

/// Whether an argument has a name, which may be written with underscores or with capitals.
fn same_name(param: &str, name: &str) -> bool {
    let plain = |name: &str| {
        name.bytes().filter(|byte| *byte != b'_').map(|byte| byte.to_ascii_lowercase()).collect::<Vec<_>>()
    };
    plain(param) == plain(name)
}

/// The arguments of a function.
fn signature(function: &Function) -> String {
    let params = function.params.iter().map(|param| match param.optional {
        true => format!("[{}]", param.name),
        false => param.name.to_owned(),
    });
    format!("{}({})", function.name, params.collect::<Vec<_>>().join(", "))
}
