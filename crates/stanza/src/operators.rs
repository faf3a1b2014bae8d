//! The operators.

mod container;
mod parsers;
mod recombine;
mod router;
mod severity;
mod syslog;
mod transforms;

use crate::build::{Built, Fields, condition};
use crate::entry::Entry;
use crate::expr::Program;
use crate::field::Field;
use crate::pipeline::Source;
use crate::time::TimeReader;
use crate::value::{Text, Value};
use container::Container;
use recombine::Recombine;
pub(crate) use recombine::Recombined;
use router::Router;
use severity::Severities;

/// The types of operators that end the way of entries.
pub(crate) const ENDS: [&str; 2] = ["file_output", "stdout"];

/// What becomes of an entry.
pub(crate) enum Next {
    /// It goes on.
    On,
    /// It is dropped on purpose.
    Dropped,
    /// It goes on by this route.
    Route(usize),
    /// The operator keeps it for a while.
    Keep,
}

/// What changes an entry.
pub(crate) trait Transform: Send {
    fn transform(&mut self, entry: &mut Entry) -> Result<(), String>;
}

/// What an operator does.
pub(crate) enum Kind {
    Transform(Box<dyn Transform>),
    Filter(Filter),
    Router(Box<Router>),
    Recombine(Box<Recombine>),
    Container(Box<Container>),
    Noop,
}

/// Drops entries.
pub(crate) struct Filter {
    when: Program,
    /// How many of a thousand are dropped.
    of_thousand: u32,
    random: u64,
}

impl Filter {
    fn new(fields: &Fields<'_>) -> Built<Self> {
        let when = condition(&fields.text_or("expr", "")?)?;
        let ratio = fields.float_or("drop_ratio", 1.0)?;
        if !(0.0..=1.0).contains(&ratio) {
            return Err("drop_ratio must be a number between 0 and 1".to_owned());
        }
        // Any seed will do: nobody is to be kept from knowing what comes.
        let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0u8) | 1;
        Ok(Filter { when, of_thousand: (ratio * 1000.0) as u32, random })
    }

    fn drops(&mut self, entry: &Entry) -> Result<bool, String> {
        if !self.when.holds(entry).map_err(|error| error.to_string())? {
            return Ok(false);
        }
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        Ok((self.random % 1000) < u64::from(self.of_thousand))
    }
}

fn boxed(transform: impl Transform + 'static) -> Option<Kind> {
    Some(Kind::Transform(Box::new(transform)))
}

impl Kind {
    /// Builds the operator of a type; nothing for a type that nobody knows.
    pub(crate) fn build(kind: &str, fields: &Fields<'_>) -> Built<Option<Self>> {
        Ok(match kind {
            "add" => boxed(transforms::Add::new(fields)?),
            "assign_keys" => boxed(transforms::AssignKeys::new(fields)?),
            "copy" => boxed(transforms::Copy::new(fields)?),
            "flatten" => boxed(transforms::Flatten::new(fields)?),
            "move" => boxed(transforms::Move::new(fields)?),
            "regex_replace" => boxed(transforms::RegexReplace::new(fields)?),
            "remove" => boxed(transforms::Remove::new(fields)?),
            "retain" => boxed(transforms::Retain::new(fields)?),
            "sanitize_utf8" => boxed(transforms::SanitizeUtf8::new(fields)?),
            "unquote" => boxed(transforms::Unquote::new(fields)?),
            "csv_parser" => boxed(Parser::new(fields, parsers::Csv::new(fields)?)?),
            "json_parser" => boxed(Parser::new(fields, parsers::Json::new(fields)?)?),
            "json_array_parser" => boxed(Parser::new(fields, parsers::JsonArray::new(fields)?)?),
            "key_value_parser" => boxed(Parser::new(fields, parsers::KeyValue::new(fields)?)?),
            "regex_parser" => boxed(Parser::new(fields, parsers::Regex::new(fields)?)?),
            "uri_parser" => boxed(Parser::new(fields, parsers::Uri)?),
            "syslog_parser" => boxed(syslog::Syslog::new(fields)?),
            "time_parser" => {
                let (from, reader) = fields.time()?;
                boxed(SubParsers { time: Some((from, reader)), ..SubParsers::default() })
            }
            "severity_parser" => {
                boxed(SubParsers { severity: Some(Severities::new(fields)?), ..SubParsers::default() })
            }
            "trace_parser" => boxed(SubParsers { trace: Some(Trace::new(fields)?), ..SubParsers::default() }),
            "scope_name_parser" => boxed(SubParsers { scope_name: Some(scope_name(fields)?), ..SubParsers::default() }),
            "container" => Some(Kind::Container(Box::new(Container::new(fields)?))),
            "filter" => Some(Kind::Filter(Filter::new(fields)?)),
            "recombine" => Some(Kind::Recombine(Box::new(Recombine::new(fields)?))),
            "router" => Some(Kind::Router(Box::new(Router::new(fields)?))),
            "noop" => Some(Kind::Noop),
            "file_output" | "stdout" => {
                return Err(format!(
                    "operators of type {kind} are not supported, send the records to a component that writes them instead"
                ));
            }
            _ => None,
        })
    }

    /// Whether entries leave the operator by an output of its own.
    pub(crate) fn goes_on(&self) -> bool {
        !matches!(self, Kind::Router(_))
    }

    /// Whether an entry goes nowhere for which the operator fails, whatever `on_error` says.
    pub(crate) fn drops_failures(&self) -> bool {
        // As with the reference, an entry that a filter cannot judge is dropped.
        matches!(self, Kind::Filter(_) | Kind::Router(_))
    }

    pub(crate) fn run(&mut self, entry: &mut Entry, source: &Source<'_>) -> Result<Next, String> {
        let _ = source;
        Ok(match self {
            Kind::Transform(transform) => {
                transform.transform(entry)?;
                Next::On
            }
            Kind::Filter(filter) => {
                if filter.drops(entry)? {
                    Next::Dropped
                } else {
                    Next::On
                }
            }
            Kind::Router(router) => match router.route(entry)? {
                Some(route) => Next::Route(route),
                None => Next::Dropped,
            },
            Kind::Recombine(recombine) => {
                recombine.look(entry)?;
                Next::Keep
            }
            Kind::Container(container) => container.look(entry)?,
            Kind::Noop => Next::On,
        })
    }

    /// Keeps an entry that the operator has just looked at; what goes on because of it.
    pub(crate) fn keep(&mut self, entry: Entry, source: &Source<'_>, flushed: &mut Vec<Recombined>) {
        match self {
            Kind::Recombine(recombine) => recombine.keep(entry, source, flushed),
            Kind::Container(container) => container.keep(entry, source, flushed),
            // Nobody else keeps anything.
            _ => flushed.push(Recombined { entry, acks: source.acks.clone(), entries: 1 }),
        }
    }

    pub(crate) fn flush(&mut self, now_ns: u64, all: bool, flushed: &mut Vec<Recombined>) {
        match self {
            Kind::Recombine(recombine) => recombine.flush(now_ns, all, flushed),
            Kind::Container(container) => container.flush(now_ns, all, flushed),
            _ => {}
        }
    }

    pub(crate) fn keeps(&self) -> bool {
        match self {
            Kind::Recombine(recombine) => recombine.keeps(),
            Kind::Container(container) => container.keeps(),
            _ => false,
        }
    }
}

/// Makes a value of another.
pub(crate) trait Parse: Send {
    /// The value; `entry` is the whole that it stands in.
    fn parse(&mut self, value: &Value, entry: &Entry) -> Result<Value, String>;
}

/// What parsers have in common: where the value stands, where what it says goes, and what is made of that.
pub(crate) struct Parser<P> {
    parse: P,
    from: Field,
    to: Field,
    body: Option<Field>,
    sub: SubParsers,
}

impl<P: Parse> Parser<P> {
    fn new(fields: &Fields<'_>, parse: P) -> Built<Self> {
        let from = fields.field("parse_from")?.unwrap_or_else(Field::body);
        let to = fields.field_or_whole("parse_to")?;
        let to = to.unwrap_or_else(|| Field::whole(crate::field::Root::Attributes));
        let body = fields.field("body")?;
        if body.is_some() && to == Field::body() {
            return Err("`parse_to: body` not allowed when `body` is configured".to_owned());
        }
        Ok(Parser { parse, from, to, body, sub: SubParsers::new(fields)? })
    }
}

impl<P: Parse> Transform for Parser<P> {
    fn transform(&mut self, entry: &mut Entry) -> Result<(), String> {
        let Some(value) = self.from.get(entry) else {
            return Err(format!(
                "Entry is missing the expected parse_from field.: {{\"parse_from\":\"{}\"}}",
                self.from
            ));
        };
        let parsed = self.parse.parse(value, entry)?;
        self.to.set(entry, parsed).map_err(|error| format!("set parse_to: {error}"))?;
        if let Some(body) = &self.body
            && let Some(value) = body.get(entry).cloned()
        {
            entry.body = value;
        }
        self.sub.transform(entry)
    }
}

/// What sets times, severities, traces and scopes.
#[derive(Default)]
pub(crate) struct SubParsers {
    time: Option<(Field, TimeReader)>,
    severity: Option<Severities>,
    trace: Option<Trace>,
    scope_name: Option<Field>,
}

fn missing(field: &Field) -> String {
    format!("log entry does not have the expected parse_from field: {{\"parse_from\":\"{field}\"}}")
}

fn scope_name(fields: &Fields<'_>) -> Built<Field> {
    fields.field("parse_from")?.ok_or_else(|| "missing required field 'parse_from'".to_owned())
}

impl SubParsers {
    fn new(fields: &Fields<'_>) -> Built<Self> {
        let within = |name: &'static str| -> Built<Option<Fields<'_>>> { fields.within(name) };
        let named = |name: &str, error: String| format!("'{name}': {error}");
        Ok(SubParsers {
            time: within("timestamp")?
                .map(|fields| fields.time())
                .transpose()
                .map_err(|error| named("timestamp", error))?,
            severity: within("severity")?
                .map(|fields| Severities::new(&fields))
                .transpose()
                .map_err(|error| named("severity", error))?,
            trace: within("trace")?
                .map(|fields| Trace::new(&fields))
                .transpose()
                .map_err(|error| named("trace", error))?,
            scope_name: within("scope_name")?
                .map(|fields| scope_name(&fields))
                .transpose()
                .map_err(|error| named("scope_name", error))?,
        })
    }
}

impl Transform for SubParsers {
    fn transform(&mut self, entry: &mut Entry) -> Result<(), String> {
        // All of them are tried, whatever becomes of the others; the first error counts.
        let mut outcome = Ok(());
        if let Some((from, reader)) = &self.time {
            let read = match from.get(entry) {
                Some(value) => reader.read(value),
                None => Err(missing(from)),
            };
            match read {
                Ok(time) => entry.timestamp = Some(time),
                Err(error) => outcome = Err(format!("time parser: {error}")),
            }
        }
        if let Some(severity) = &self.severity {
            outcome = outcome.and(severity.set(entry).map_err(|error| format!("severity parser: {error}")));
        }
        if let Some(trace) = &self.trace {
            outcome = outcome.and(trace.set(entry).map_err(|error| format!("trace parser: {error}")));
        }
        if let Some(from) = &self.scope_name {
            let named = match from.get(entry) {
                Some(Value::Str(name)) => Ok(name.clone()),
                Some(_) => Err(format!("parse_from field does not contain a string: {{\"parse_from\":\"{from}\"}}")),
                None => Err(missing(from)),
            };
            match named {
                Ok(name) => entry.scope_name = name,
                Err(error) => outcome = outcome.and(Err(format!("scope_name parser: {error}"))),
            }
        }
        outcome
    }
}

/// Sets the ids of a trace.
pub(crate) struct Trace {
    trace_id: Field,
    span_id: Field,
    flags: Field,
}

impl Trace {
    fn new(fields: &Fields<'_>) -> Built<Self> {
        let part = |name: &'static str| -> Built<Field> {
            let within = fields.within(name)?;
            let field = within.map(|fields| fields.field("parse_from")).transpose()?.flatten();
            Ok(field.unwrap_or_else(|| Field::of_body(name)))
        };
        Ok(Trace { trace_id: part("trace_id")?, span_id: part("span_id")?, flags: part("trace_flags")? })
    }

    fn set(&self, entry: &mut Entry) -> Result<(), String> {
        let mut wrong = Vec::new();
        let mut read = |field: &Field, name: &str| {
            let text = crate::expr::go_text(field.get(entry)?);
            match unhex(text.as_bytes()) {
                Ok(bytes) => Some(bytes),
                Err(error) => {
                    wrong.push(format!("\"{name}\":{error:?}"));
                    None
                }
            }
        };
        let ids = (read(&self.span_id, "span_id"), read(&self.flags, "trace_flags"), read(&self.trace_id, "trace_id"));
        (entry.span_id, entry.trace_flags, entry.trace_id) = ids;
        if wrong.is_empty() {
            return Ok(());
        }
        Err(format!("Error decoding traces for logs: {{{}}}", wrong.join(",")))
    }
}

fn unhex(text: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len() / 2);
    let digit = |byte: u8| {
        let value = char::from(byte).to_digit(16);
        value.ok_or_else(|| format!("encoding/hex: invalid byte: U+{byte:04X} {:?}", char::from(byte)))
    };
    for pair in text.chunks_exact(2) {
        out.push((digit(pair[0])? << 4 | digit(pair[1])?) as u8);
    }
    if let [odd] = text.chunks_exact(2).remainder() {
        digit(*odd)?;
        return Err("encoding/hex: odd length hex string".to_owned());
    }
    Ok(out)
}

/// Attributes that are given with their names.
pub(crate) fn put_all(names: &[(Text, crate::expr::Template)], entry: &mut Entry) -> Result<(), String> {
    for (name, template) in names {
        let text = template.render(entry)?;
        entry.attributes_mut().put(name.clone(), Value::Str(text));
    }
    Ok(())
}
