//! Which records a processor looks at: what its `include` and `exclude` blocks say.

mod constant;
mod texts;

use corten_config::arguments::CheckErrors;
use corten_config::schema::Stability;
use corten_config::{Arguments, Value as Given};
use corten_otlp::{Arena, Data, LogRecord, Map, Metric, Record, Resource, Scope, Span, Value};

pub(crate) use constant::Constant;
pub(crate) use texts::{Compare, Scratch, Texts};

/// Which records to look at.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub struct Selection {
    /// What is to be looked at. Without the block that is everything.
    #[block]
    include: Option<Properties>,
    /// What is to be left alone, of what `include` selects.
    #[block]
    exclude: Option<Properties>,
}

/// What a record has to be like to match: all that is said here has to hold, and of each list one entry, but of
/// attributes, resources and libraries every one.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct Properties {
    /// How texts are compared: `strict`, where they have to be equal, or `regexp`, where a regular expression in the syntax
    /// of RE2 has to match somewhere in the text.
    match_type: String,
    /// Names of the services of spans, as their resources say them.
    #[arg(optional)]
    services: Vec<String>,
    /// Names of spans.
    #[arg(optional)]
    span_names: Vec<String>,
    /// Kinds of spans, such as `SPAN_KIND_SERVER`.
    #[arg(optional)]
    span_kinds: Vec<String>,
    /// Bodies of log records.
    #[arg(optional)]
    log_bodies: Vec<String>,
    /// Texts of the severities of log records.
    #[arg(optional)]
    log_severity_texts: Vec<String>,
    /// How severe log records have to be.
    #[block]
    log_severity: Option<LogSeverity>,
    /// Names of metrics.
    #[arg(optional)]
    metric_names: Vec<String>,
    /// Attributes that a span or a log record has to have.
    #[block(name = "attribute")]
    attributes: Vec<Attribute>,
    /// Attributes that the resource has to have. For metrics they mean nothing.
    #[block(name = "resource")]
    resources: Vec<Attribute>,
    /// What the library has to be that recorded a span or a log record.
    #[block(name = "library")]
    libraries: Vec<Library>,
    /// Whether results of regular expressions are remembered.
    #[block]
    regexp: Option<Remember>,
}

/// How severe log records have to be.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct LogSeverity {
    /// The lowest severity that matches, from `TRACE`, `TRACE2`, `TRACE3`, `TRACE4` over `DEBUG`, `INFO`, `WARN` and
    /// `ERROR` to `FATAL4`.
    min: String,
    /// Whether a log record matches that does not say how severe it is.
    match_undefined: bool,
}

impl LogSeverity {
    fn check(&self) -> Result<(), CheckErrors> {
        self.number().map(drop).map_err(|message| CheckErrors::of(&["min"], message))
    }

    fn number(&self) -> Result<i32, String> {
        const LEVELS: [&str; 6] = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"];
        const STEPS: [&str; 4] = ["", "2", "3", "4"];
        let number = LEVELS.iter().enumerate().find_map(|(level, name)| {
            let step = self.min.strip_prefix(name)?;
            Some(4 * level + STEPS.iter().position(|known| *known == step)? + 1)
        });
        number.map(|number| number as i32).ok_or_else(|| format!("unrecognized severity level {:?}", self.min))
    }
}

/// An attribute.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct Attribute {
    /// Its key.
    key: String,
    /// Its value. Without it, the key is enough. With `match_type = "regexp"` it is a regular expression that the attribute
    /// has to match, which may be a text, a number or a truth value.
    value: Option<Given>,
}

/// A library.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct Library {
    /// Its name.
    name: String,
    /// Its version. Without it, any version matches.
    version: Option<String>,
}

/// Whether results of regular expressions are remembered.
#[derive(Arguments, Clone, Copy, Debug, Default, PartialEq)]
pub struct Remember {
    /// Whether they are. That pays where the same texts are seen over and over and expressions are slow.
    #[arg(default = false)]
    cache_enabled: bool,
    /// How many results of a list of expressions are remembered; 0 means as many as is sensible, which is 100000.
    #[arg(default = 0)]
    cache_max_num_entries: i64,
}

/// The names of the kinds of spans, by their numbers.
const SPAN_KINDS: [&str; 6] = [
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
];

impl Properties {
    /// What is wrong whatever signal it is for.
    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        if let Err(message) = self.properties() {
            errors.push(&["library", "attribute", "resource", "match_type"], message);
        }
        for (field, texts, what) in [
            ("services", &self.services, "service name"),
            ("span_names", &self.span_names, "span name"),
            ("span_kinds", &self.span_kinds, "span kind"),
            ("log_bodies", &self.log_bodies, "log record body"),
            ("log_severity_texts", &self.log_severity_texts, "log record severity text"),
            ("metric_names", &self.metric_names, ""),
        ] {
            if let Err(message) = self.texts(texts, what) {
                errors.push(&[field, "match_type"], message);
            }
        }
        errors.into_result()
    }

    fn compare(&self) -> Result<Compare, String> {
        match &*self.match_type {
            "strict" => Ok(Compare::Strict),
            "regexp" => {
                let remember = self.regexp.filter(|regexp| regexp.cache_enabled);
                let entries =
                    remember.map_or(Ok(0), |remember| match usize::try_from(remember.cache_max_num_entries) {
                        Ok(0) => Ok(texts::CACHE_ENTRIES_MAX),
                        Ok(entries) => Ok(entries.min(texts::CACHE_ENTRIES_MAX)),
                        Err(_) => Err("must provide a positive size".to_owned()),
                    });
                entries.map(Compare::Regexp)
            }
            other => Err(format!("unrecognized match_type: '{other}', valid types are: [regexp strict]")),
        }
    }

    /// A list of one of the fields; nothing where it is empty.
    fn texts(&self, texts: &[String], what: &str) -> Result<Option<Texts>, String> {
        if texts.is_empty() {
            return Ok(None);
        }
        let made = self.compare().and_then(|compare| Texts::new(texts, compare));
        made.map(Some).map_err(|error| match what {
            "" => error,
            what => format!("error creating {what} filters: {error}"),
        })
    }

    /// What spans and log records have in common.
    fn properties(&self) -> Result<Matcher, String> {
        let mut libraries = Vec::with_capacity(self.libraries.len());
        for library in &self.libraries {
            let texts = |text: &String, what: &str| {
                let made = self.compare().and_then(|compare| Texts::new(std::slice::from_ref(text), compare));
                made.map_err(|error| format!("error creating library {what} filters: {error}"))
            };
            let name = texts(&library.name, "name")?;
            libraries.push((name, library.version.as_ref().map(|version| texts(version, "version")).transpose()?));
        }
        let attributes = |attributes: &[Attribute], what: &str| {
            let made: Result<Vec<_>, String> = attributes.iter().map(|attribute| self.attribute(attribute)).collect();
            made.map_err(|error| format!("error creating {what} filters: {error}"))
        };
        Ok(Matcher {
            libraries,
            attributes: attributes(&self.attributes, "attribute")?,
            resources: attributes(&self.resources, "resource")?,
            ..Matcher::default()
        })
    }

    fn attribute(&self, attribute: &Attribute) -> Result<Wanted, String> {
        if attribute.key.is_empty() {
            return Err("can't have empty key in the list of attributes".to_owned());
        }
        let value = match attribute.value.as_ref().map(Constant::new).transpose()? {
            None | Some(Constant { value: Value::Empty, .. }) => WantedValue::Any,
            Some(constant) => match (self.compare()?, constant.value) {
                (Compare::Strict, _) => WantedValue::Is(constant),
                (compare, Value::Str(text)) => WantedValue::Matches(Texts::new(&[constant.arena.text(text)], compare)?),
                (_, other) => {
                    let kind = match other {
                        Value::Bool(_) => "Bool",
                        Value::Int(_) => "Int",
                        Value::Double(_) => "Double",
                        Value::Bytes(_) => "Bytes",
                        Value::List(_) => "Slice",
                        _ => "Map",
                    };
                    return Err(format!(
                        "match_type=regexp for {:?} only supports Str, but found {kind}",
                        attribute.key
                    ));
                }
            },
        };
        Ok(Wanted { key: attribute.key.as_bytes().into(), value })
    }
}

/// What `include` or `exclude` asks for of a signal.
#[derive(Debug, Default)]
pub(crate) struct Matcher {
    services: Option<Texts>,
    resources: Vec<Wanted>,
    libraries: Vec<(Texts, Option<Texts>)>,
    attributes: Vec<Wanted>,
    /// The names of spans or of metrics.
    names: Option<Texts>,
    kinds: Option<Texts>,
    bodies: Option<Texts>,
    severity_texts: Option<Texts>,
    /// The lowest severity, and whether a record matches that has none.
    severity: Option<(i32, bool)>,
}

#[derive(Debug)]
struct Wanted {
    key: Box<[u8]>,
    value: WantedValue,
}

#[derive(Debug)]
enum WantedValue {
    Any,
    Is(Constant),
    Matches(Texts),
}

fn has_all(wanted: &[Wanted], arena: &Arena, attributes: Map, scratch: &mut Scratch) -> bool {
    wanted.iter().all(|wanted| {
        let Some(value) = arena.get(attributes, &wanted.key) else { return false };
        match &wanted.value {
            WantedValue::Any => true,
            WantedValue::Is(constant) => arena.same(value, &constant.arena, constant.value),
            WantedValue::Matches(texts) => {
                scratch.text.clear();
                write_plain(arena, value, &mut scratch.text) && texts.matches(&scratch.text, &mut scratch.lossy)
            }
        }
    })
}

impl Matcher {
    fn takes_resource(&self, arena: &Arena, resource: &Resource, scratch: &mut Scratch) -> bool {
        if let Some(services) = &self.services {
            let taken = match arena.get(resource.attributes, b"service.name") {
                Some(Value::Str(name)) => services.matches(arena.bytes(name), &mut scratch.lossy),
                Some(name) => {
                    scratch.text.clear();
                    arena.write_text(name, &mut scratch.text);
                    services.matches(&scratch.text, &mut scratch.lossy)
                }
                None => services.matches(b"<nil-service-name>", &mut scratch.lossy),
            };
            if !taken {
                return false;
            }
        }
        has_all(&self.resources, arena, resource.attributes, scratch)
    }

    fn takes_scope(&self, arena: &Arena, scope: &Scope, scratch: &mut Scratch) -> bool {
        self.libraries.iter().all(|(name, version)| {
            name.matches(arena.bytes(scope.name), &mut scratch.lossy)
                && version.as_ref().is_none_or(|it| it.matches(arena.bytes(scope.version), &mut scratch.lossy))
        })
    }
}

/// A record that `include` and `exclude` blocks can select.
pub(crate) trait Selected: Record {
    /// What a block asks for of this signal; nothing if it asks for nothing.
    fn matcher(properties: &Properties) -> Result<Option<Matcher>, String>;

    /// Whether it is what is asked for, as far as the resource and the scope do not say.
    fn is_taken(&self, by: &Matcher, arena: &Arena, scratch: &mut Scratch) -> bool;
}

impl Selected for Span {
    fn matcher(of: &Properties) -> Result<Option<Matcher>, String> {
        for (is_there, name) in [
            (!of.log_bodies.is_empty(), "log_bodies"),
            (!of.log_severity_texts.is_empty(), "log_severity_texts"),
            (of.log_severity.is_some(), "log_severity_number"),
            (!of.metric_names.is_empty(), "metric_names"),
        ] {
            if is_there {
                return Err(format!("{name} should not be specified for trace spans"));
            }
        }
        let lists = [&of.services, &of.span_names, &of.span_kinds];
        let blocks = [of.attributes.len(), of.libraries.len(), of.resources.len()];
        if lists.iter().all(|list| list.is_empty()) && blocks == [0; 3] {
            let error = r#"at least one of "attributes", "libraries",  or "resources" field must be specified"#;
            return Err(error.to_owned());
        }
        let known = &SPAN_KINDS[1..];
        if of.match_type == "strict" && of.span_kinds.iter().any(|kind| !known.contains(&&**kind)) {
            let mut known = known.to_vec();
            known.sort_unstable();
            // The empty names are the reference's.
            let error = "span_kinds string must match one of the standard span kinds when match_type=strict: ";
            return Err(format!("{error}[     {}]", known.join(" ")));
        }
        let properties = of.properties()?;
        Ok(Some(Matcher {
            services: of.texts(&of.services, "service name")?,
            names: of.texts(&of.span_names, "span name")?,
            kinds: of.texts(&of.span_kinds, "span kind")?,
            ..properties
        }))
    }

    fn is_taken(&self, by: &Matcher, arena: &Arena, scratch: &mut Scratch) -> bool {
        if by.names.as_ref().is_some_and(|names| !names.matches(arena.bytes(self.name), &mut scratch.lossy)) {
            return false;
        }
        if let Some(kinds) = &by.kinds {
            let kind = usize::try_from(self.kind).ok().and_then(|kind| SPAN_KINDS.get(kind));
            if !kinds.matches(kind.map_or("", |kind| kind).as_bytes(), &mut scratch.lossy) {
                return false;
            }
        }
        has_all(&by.attributes, arena, self.attributes, scratch)
    }
}

impl Selected for LogRecord {
    fn matcher(of: &Properties) -> Result<Option<Matcher>, String> {
        if [&of.span_names, &of.services, &of.span_kinds, &of.metric_names].iter().any(|list| !list.is_empty()) {
            return Err("services, span_names, span_kinds and metric_names are not valid for log records".to_owned());
        }
        let blocks = [of.attributes.len(), of.libraries.len(), of.resources.len()];
        let lists = [&of.log_bodies, &of.log_severity_texts];
        if blocks == [0; 3] && lists.iter().all(|list| list.is_empty()) && of.log_severity.is_none() {
            return Err(concat!(
                r#"at least one of "attributes", "libraries", "span_kinds", "resources", "log_bodies", "#,
                r#""log_severity_texts" or "log_severity_number" field must be specified"#
            )
            .to_owned());
        }
        let properties = of.properties()?;
        let severity = of.log_severity.as_ref();
        Ok(Some(Matcher {
            bodies: of.texts(&of.log_bodies, "log record body")?,
            severity_texts: of.texts(&of.log_severity_texts, "log record severity text")?,
            severity: severity.map(|it| Ok::<_, String>((it.number()?, it.match_undefined))).transpose()?,
            ..properties
        }))
    }

    fn is_taken(&self, by: &Matcher, arena: &Arena, scratch: &mut Scratch) -> bool {
        if let Some(bodies) = &by.bodies {
            let taken = match self.body {
                Value::Str(text) => bodies.matches(arena.bytes(text), &mut scratch.lossy),
                body => {
                    scratch.text.clear();
                    arena.write_text(body, &mut scratch.text);
                    bodies.matches(&scratch.text, &mut scratch.lossy)
                }
            };
            if !taken {
                return false;
            }
        }
        if let Some(texts) = &by.severity_texts
            && !texts.matches(arena.bytes(self.severity_text), &mut scratch.lossy)
        {
            return false;
        }
        if let Some((min, undefined)) = by.severity
            && !(if self.severity == 0 { undefined } else { self.severity >= min })
        {
            return false;
        }
        has_all(&by.attributes, arena, self.attributes, scratch)
    }
}

impl Selected for Metric {
    fn matcher(of: &Properties) -> Result<Option<Matcher>, String> {
        let lists = [&of.log_bodies, &of.log_severity_texts, &of.span_names, &of.services, &of.span_kinds];
        let blocks = [of.attributes.len(), of.libraries.len()];
        if lists.iter().any(|list| !list.is_empty()) || blocks != [0; 2] || of.log_severity.is_some() {
            return Err(concat!(
                r#""span_names", "span_kinds", "log_bodies", "log_severity_texts", "log_severity_number", "services", "#,
                r#""attributes" and "libraries" are not valid for metrics"#
            )
            .to_owned());
        }
        if of.metric_names.is_empty() && of.resources.is_empty() {
            return Err(r#"at least one of "metric_names" or "resources" field must be specified"#.to_owned());
        }
        let names = of.texts(&of.metric_names, "")?;
        // Without names a block selects nothing and excludes nothing, whatever it says of resources.
        Ok(names.map(|names| Matcher { names: Some(names), ..Matcher::default() }))
    }

    fn is_taken(&self, by: &Matcher, arena: &Arena, scratch: &mut Scratch) -> bool {
        by.names.as_ref().is_none_or(|names| names.matches(arena.bytes(self.name), &mut scratch.lossy))
    }
}

/// Which records of a signal to look at.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    include: Option<Matcher>,
    exclude: Option<Matcher>,
}

impl Selection {
    /// What the blocks say of a signal.
    ///
    /// # Errors
    ///
    /// They ask for what records of the signal do not have.
    pub(crate) fn compile<R: Selected>(&self) -> Result<Filter, String> {
        let matcher = |of: &Option<Properties>| of.as_ref().map_or(Ok(None), R::matcher);
        Ok(Filter { include: matcher(&self.include)?, exclude: matcher(&self.exclude)? })
    }
}

impl Filter {
    /// Changes the records that are to be looked at.
    pub(crate) fn each<R: Selected>(
        &self,
        data: &mut Data<R>,
        scratch: &mut Scratch,
        mut change: impl FnMut(&mut R, &mut Arena, &mut Scratch),
    ) {
        let Data { arena, resources } = data;
        let include = self.include.as_ref();
        for of in resources {
            if include.is_some_and(|matcher| !matcher.takes_resource(arena, &of.resource, scratch)) {
                continue;
            }
            let exclude = self.exclude.as_ref();
            let exclude = exclude.filter(|matcher| matcher.takes_resource(arena, &of.resource, scratch));
            for of in &mut of.scopes {
                if include.is_some_and(|matcher| !matcher.takes_scope(arena, &of.scope, scratch)) {
                    continue;
                }
                let exclude = exclude.filter(|matcher| matcher.takes_scope(arena, &of.scope, scratch));
                for record in &mut of.records {
                    if include.is_none_or(|matcher| record.is_taken(matcher, arena, scratch))
                        && exclude.is_none_or(|matcher| !record.is_taken(matcher, arena, scratch))
                    {
                        change(record, arena, scratch);
                    }
                }
            }
        }
    }
}

/// Appends a text, a number or a truth value as a text; `false` if the value is none of these.
pub(crate) fn write_plain(arena: &Arena, value: Value, out: &mut Vec<u8>) -> bool {
    use std::io::Write as _;
    let written = match value {
        Value::Str(text) => out.write_all(arena.bytes(text)),
        Value::Bool(value) => write!(out, "{value}"),
        Value::Int(value) => write!(out, "{value}"),
        Value::Double(value) if value.is_infinite() => write!(out, "{}Inf", if value > 0.0 { '+' } else { '-' }),
        Value::Double(value) => write!(out, "{value}"),
        _ => return false,
    };
    written.is_ok()
}
