//! The functions of the language.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Mutex};

use corten_golang::time::Time;
use corten_otlp::{Arena, List, Map};
use corten_signal::regex::GoRegex;

use crate::context::Context;
use crate::error::EvalError;
use crate::grok::{Definitions, Grok};
use crate::item::Item;
use crate::program::{Arg, Call, Ex, Path};
use crate::value::{Const, Val};

pub(crate) use types::parse_bool;

mod editors;
mod lists;
mod logs;
mod maps;
mod metrics;
mod spans;
mod texts;
mod times;
mod types;
mod xmls;

/// What a function gives.
pub(crate) type Got<'p> = Result<Val<'p>, EvalError>;

/// What an argument has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Anything.
    Any,
    /// A text.
    Text,
    /// Anything that can be written as a text.
    TextLike,
    /// A whole number.
    Int,
    /// Anything that can be read as a number.
    DoubleLike,
    /// Anything that can be read as a whole number.
    IntLike,
    /// Anything that can be read as a truth value.
    BoolLike,
    /// Anything that can be read as bytes.
    BytesLike,
    /// A truth value; only to ask for its type.
    Bool,
    /// A number; only to ask for its type.
    Double,
    /// A map.
    Map,
    /// A list.
    List,
    /// An instant.
    Time,
    /// A time that passes.
    Duration,
    /// A path that is written to.
    Place,
    /// A path to a map that is changed.
    MapPlace,
    /// A path to a list that is changed.
    ListPlace,
    /// A string as it is written.
    ConstText,
    /// A whole number as it is written.
    ConstInt,
    /// A number with a point as it is written.
    ConstDouble,
    /// `true` or `false`.
    ConstBool,
    /// A list of strings as they are written.
    ConstTexts,
    /// A list of numbers as they are written.
    ConstDoubles,
    /// A list of anything.
    Anys,
    /// A list of texts.
    Texts,
    /// A list of anything that can be written as a text.
    TextLikes,
    /// The name of a function.
    Function,
}

/// An argument of a function.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Param {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) optional: bool,
}

pub(crate) const fn param(name: &'static str, kind: Kind) -> Param {
    Param { name, kind, optional: false }
}

pub(crate) const fn optional(name: &'static str, kind: Kind) -> Param {
    Param { name, kind, optional: true }
}

/// A mistake that only a function itself finds: at which argument.
pub(crate) type Refused = (usize, String);

/// A function.
pub(crate) struct Function {
    pub(crate) name: &'static str,
    pub(crate) params: &'static [Param],
    /// Looks at what is known of the arguments before anything is executed.
    pub(crate) prepare: fn(&[Option<Arg>]) -> Result<Prepared, Refused>,
    pub(crate) run: for<'p> fn(&'p Call, &mut Item<'_>) -> Got<'p>,
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// What a function made of its arguments when it was loaded.
#[derive(Debug, Default)]
pub(crate) enum Prepared {
    #[default]
    Nothing,
    /// A pattern that is written in the statement.
    Regex(GoRegex),
    /// A pattern that is only known when the statement runs.
    LastRegex(Last<GoRegex>),
    Time(Box<times::Reader>),
    Severities(Vec<(String, maps::Severity)>),
    Networks(Vec<texts::Network>),
    Csv(texts::Csv),
    Grok(Box<Grok>),
    /// As `LastRegex`, with the names that the statement defines, and whether only what is named is captured.
    LastGrok(Last<Grok>, Definitions, bool),
    XPath(Box<crate::xml::xpath::XPath>),
}

/// What was made of a text that is only known when the statement runs: of the last one.
#[derive(Debug)]
pub(crate) struct Last<T>(Mutex<Option<(Vec<u8>, Arc<T>)>>);

impl<T> Default for Last<T> {
    fn default() -> Self {
        Last(Mutex::default())
    }
}

impl<T> Last<T> {
    /// What a text is made; `make` is only asked for another one than the last.
    pub(crate) fn of<E>(&self, text: &[u8], make: impl FnOnce(&str) -> Result<T, E>) -> Result<Arc<T>, E> {
        let mut last = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((known, made)) = &*last
            && **known == *text
        {
            return Ok(made.clone());
        }
        let made = Arc::new(make(&String::from_utf8_lossy(text))?);
        *last = Some((text.to_vec(), made.clone()));
        Ok(made)
    }
}

/// A pattern.
pub(crate) enum Pattern<'p> {
    Known(&'p GoRegex),
    Found(Arc<GoRegex>),
}

impl std::ops::Deref for Pattern<'_> {
    type Target = GoRegex;

    fn deref(&self) -> &GoRegex {
        match self {
            Pattern::Known(regex) => regex,
            Pattern::Found(regex) => regex,
        }
    }
}

/// Nothing has to be prepared.
pub(crate) fn plain(_: &[Option<Arg>]) -> Result<Prepared, Refused> {
    Ok(Prepared::Nothing)
}

/// The argument with this number is a pattern.
pub(crate) fn regex_at<const AT: usize>(args: &[Option<Arg>]) -> Result<Prepared, Refused> {
    pattern_at::<AT>(args, str::to_owned)
}

fn pattern_at<const AT: usize>(args: &[Option<Arg>], to_regex: fn(&str) -> String) -> Result<Prepared, Refused> {
    let Some(pattern) = const_text(args, AT) else { return Ok(Prepared::LastRegex(Last::default())) };
    let pattern = String::from_utf8_lossy(pattern);
    let regex = GoRegex::new(&to_regex(&pattern));
    regex.map(Prepared::Regex).map_err(|error| (AT, format!("{pattern:?} is not a valid pattern: {error}")))
}

/// The text of an argument, if it is written in the statement.
pub(crate) fn const_text(args: &[Option<Arg>], at: usize) -> Option<&[u8]> {
    match args.get(at)?.as_ref()? {
        Arg::One(Ex::Const(Const::Text(text))) => Some(text),
        _ => None,
    }
}

/// The text of an argument that is always written in the statement.
pub(crate) fn const_str(args: &[Option<Arg>], at: usize) -> Option<Cow<'_, str>> {
    const_text(args, at).map(String::from_utf8_lossy)
}

/// The number of an argument that is always written in the statement.
pub(crate) fn const_int(args: &[Option<Arg>], at: usize) -> Option<i64> {
    match args.get(at)?.as_ref()? {
        Arg::One(Ex::Const(Const::Int(value))) => Some(*value),
        _ => None,
    }
}

/// The texts of an argument that is always written in the statement.
pub(crate) fn const_texts(args: &[Option<Arg>], at: usize) -> Option<Vec<&[u8]>> {
    let Arg::Many(values) = args.get(at)?.as_ref()? else { return None };
    values
        .iter()
        .map(|value| value.constant())
        .map(|value| match value {
            Some(Const::Text(text)) => Some(&**text),
            _ => None,
        })
        .collect()
}

/// The functions that need lambda expressions, which the collector has switched off.
pub(crate) const LAMBDA_FUNCTIONS: &[&str] = &["All", "Any", "Filter", "Find", "MapEach", "MapKeys", "Reduce", "When"];

/// The function of a name in a context.
pub(crate) fn find(name: &str, context: Context) -> Option<&'static Function> {
    tables(context).find(|function| function.name == name)
}

fn tables(context: Context) -> impl Iterator<Item = &'static Function> {
    const COMMON: [&[Function]; 7] = [
        editors::FUNCTIONS,
        texts::FUNCTIONS,
        types::FUNCTIONS,
        maps::FUNCTIONS,
        lists::FUNCTIONS,
        times::FUNCTIONS,
        xmls::FUNCTIONS,
    ];
    let own: &'static [Function] = match context {
        Context::Span => spans::FUNCTIONS,
        Context::Metric => metrics::METRICS,
        Context::DataPoint => metrics::POINTS,
        Context::Log => logs::FUNCTIONS,
        _ => &[],
    };
    COMMON.into_iter().flatten().chain(own)
}

/// The names of a context's functions.
pub(crate) fn names(context: Context) -> impl Iterator<Item = &'static str> {
    tables(context).map(|function| function.name)
}

/// Refuses a value of another type.
pub(crate) fn expected<T>(expected: &str, found: &Val<'_>) -> Result<T, EvalError> {
    Err(format!("expected {expected} but got {}", found.type_name()).into())
}

impl Call {
    /// Whether an argument is there.
    pub(crate) fn has(&self, at: usize) -> bool {
        matches!(self.args.get(at), Some(Some(_)))
    }

    /// The value of an argument.
    pub(crate) fn any<'p>(&'p self, at: usize, item: &mut Item<'_>) -> Got<'p> {
        match self.args.get(at) {
            Some(Some(Arg::One(ex))) => ex.val(item),
            _ => Ok(Val::Nil),
        }
    }

    /// The values of a list of arguments.
    pub(crate) fn many(&self, at: usize) -> &[Ex] {
        match self.args.get(at) {
            Some(Some(Arg::Many(values))) => values,
            _ => &[],
        }
    }

    /// A text.
    pub(crate) fn text<'p>(&'p self, at: usize, item: &mut Item<'_>) -> Got<'p> {
        text(self.any(at, item)?)
    }

    /// A text's bytes.
    pub(crate) fn owned<'p>(&'p self, at: usize, item: &mut Item<'_>) -> Result<Cow<'p, [u8]>, EvalError> {
        Ok(match self.text(at, item)? {
            Val::Str(text) => text,
            Val::Text(text) => Cow::Owned(item.arena.bytes(text).to_vec()),
            _ => Cow::Borrowed(b""),
        })
    }

    /// The texts of a list of arguments.
    pub(crate) fn texts<'p>(&'p self, at: usize, item: &mut Item<'_>) -> Result<Vec<Cow<'p, [u8]>>, EvalError> {
        let texts = self.many(at).iter().map(|ex| {
            Ok(match text(ex.val(item)?)? {
                Val::Text(text) => Cow::Owned(item.arena.bytes(text).to_vec()),
                Val::Str(text) => text,
                _ => Cow::Borrowed(&b""[..]),
            })
        });
        texts.collect()
    }

    /// A whole number.
    pub(crate) fn int(&self, at: usize, item: &mut Item<'_>) -> Result<i64, EvalError> {
        match self.any(at, item)? {
            Val::Int(value) => Ok(value),
            other => expected("int64", &other),
        }
    }

    /// An instant.
    pub(crate) fn time(&self, at: usize, item: &mut Item<'_>) -> Result<Time, EvalError> {
        match self.any(at, item)? {
            Val::Time(time) => Ok(time),
            other => expected("time", &other),
        }
    }

    /// A time that passes, in nanoseconds.
    pub(crate) fn duration(&self, at: usize, item: &mut Item<'_>) -> Result<i64, EvalError> {
        match self.any(at, item)? {
            Val::Duration(duration) => Ok(duration),
            other => expected("duration", &other),
        }
    }

    /// A map.
    pub(crate) fn map(&self, at: usize, item: &mut Item<'_>) -> Result<Map, EvalError> {
        match self.any(at, item)? {
            Val::Map(map) => Ok(map),
            other => expected("pcommon.Map", &other),
        }
    }

    /// A list.
    pub(crate) fn list(&self, at: usize, item: &mut Item<'_>) -> Result<List, EvalError> {
        match self.any(at, item)? {
            Val::List(list) => Ok(list),
            other => expected("pcommon.Slice", &other),
        }
    }

    /// A truth value as it is written.
    pub(crate) fn const_bool(&self, at: usize) -> Option<bool> {
        match self.args.get(at) {
            Some(Some(Arg::One(Ex::Const(Const::Bool(value))))) => Some(*value),
            _ => None,
        }
    }

    /// A text as it is written.
    pub(crate) fn const_text(&self, at: usize) -> Option<&[u8]> {
        const_text(&self.args, at)
    }

    /// A whole number as it is written.
    pub(crate) fn const_int(&self, at: usize) -> Option<i64> {
        const_int(&self.args, at)
    }

    /// A path that is written to.
    pub(crate) fn place(&self, at: usize) -> Result<&Path, EvalError> {
        match self.args.get(at) {
            Some(Some(Arg::One(Ex::Path(path)))) => Ok(path),
            _ => Err("a path is expected".into()),
        }
    }

    /// The pattern of an argument.
    pub(crate) fn pattern<'p>(&'p self, at: usize, item: &mut Item<'_>) -> Result<Pattern<'p>, EvalError> {
        self.pattern_of(at, item, str::to_owned)
    }

    /// The pattern of an argument that is written differently.
    pub(crate) fn pattern_of<'p>(
        &'p self,
        at: usize,
        item: &mut Item<'_>,
        to_regex: fn(&str) -> String,
    ) -> Result<Pattern<'p>, EvalError> {
        match &self.prepared {
            Prepared::Regex(regex) => Ok(Pattern::Known(regex)),
            Prepared::LastRegex(last) => {
                let pattern = self.owned(at, item)?;
                let regex = last.of(&pattern, |text| {
                    GoRegex::new(&to_regex(text)).map_err(|error| {
                        let name = self.function.name;
                        EvalError::new(format!("the pattern {text:?} given to {name} is not valid: {error}"))
                    })
                })?;
                Ok(Pattern::Found(regex))
            }
            _ => Err("there is no pattern".into()),
        }
    }
}

/// Refuses what is no text.
pub(crate) fn text(value: Val<'_>) -> Got<'_> {
    match value {
        Val::Text(_) | Val::Str(_) => Ok(value),
        other => expected("string", &other),
    }
}

/// Runs a function on one text.
pub(crate) fn apply(function: &'static Function, input: Vec<u8>, item: &mut Item<'_>) -> Result<Vec<u8>, EvalError> {
    let args = vec![Some(Arg::One(Ex::Const(Const::Text(input.into()))))];
    let prepared = (function.prepare)(&args).map_err(|(_, what)| EvalError::new(what))?;
    let call = Call { function, args, prepared };
    let value = call.run(item)?;
    let text = value.text(item.arena).map(<[u8]>::to_vec);
    text.ok_or_else(|| "the replacement value must be a string".into())
}

/// A text as a value.
pub(crate) fn own(arena: &mut Arena, text: &[u8]) -> corten_otlp::Value {
    corten_otlp::Value::Str(arena.own(text))
}
