//! `otelcol.processor.attributes`.

use std::net::IpAddr;
use std::sync::Arc;

use corten_component::{Context, Error};
use corten_config::arguments::CheckErrors;
use corten_config::schema::Stability;
use corten_config::{Arguments, Value as Given};
use corten_otlp::{Arena, Map, OtlpSignal, RequestContext, Text, Value};
use corten_signal::ConsumeError;
use corten_signal::ledger::Pass;
use corten_signal::regex::GoRegex;
use ring::digest::{SHA256, digest};

use crate::filtering::{Constant, Filter, Scratch, Selected, Selection};
use crate::flow::{DebugMetrics, Output};
use crate::process::{Attributed, Kind, Process, Processes, Processor};

/// Changes the attributes of spans, log records and data points. Those of resources and of scopes stay as they are.
///
/// What `include` selects and `exclude` leaves is changed by every action, one after the other. For metrics, the blocks
/// select by the metric, and the actions change the attributes of all its data points.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct AttributesArguments {
    /// Which spans, log records and metrics to change.
    #[flatten]
    selection: Selection,
    /// What to do, in order.
    #[block(name = "action")]
    actions: Vec<Action>,
    /// Where to send what was changed.
    #[block]
    output: Output,
    /// Which metrics of its own the component has.
    #[block(optional)]
    debug_metrics: DebugMetrics,
}

/// What to do with an attribute.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct Action {
    /// The key of the attribute. `delete` and `hash` can do with a `pattern` instead, or have both.
    #[arg(optional)]
    key: String,
    /// What to do: `insert` gives an attribute to what does not have it, `update` changes it where it is, `upsert` does
    /// either, `delete` takes it away, `hash` replaces its value with the SHA-256 of it in hexadecimal, `extract` makes
    /// attributes of the groups of `pattern`, and `convert` changes the type. Case does not matter.
    ///
    /// A text is hashed as it is, a number as its eight bytes, lowest first, a truth value as a byte; what is none of these
    /// becomes empty.
    action: String,
    /// The value for `insert`, `update` and `upsert`, which take exactly one of `value`, `from_attribute` and
    /// `from_context`.
    value: Option<Given>,
    /// A regular expression in the syntax of RE2. For `delete` and `hash`, it selects attributes by their keys. For
    /// `extract`, it is matched with the value, which has to be a text, and its groups, which all have names, become
    /// attributes of these names, whether or not there were any before.
    #[arg(optional)]
    pattern: String,
    /// Key of the attribute to copy the value from. Without it, nothing happens.
    #[arg(optional)]
    from_attribute: String,
    /// Where in the request to find the value: `metadata.` and the name of a header, which the receiver has to be told to
    /// keep with `include_metadata`; `auth.` and the name of something that the authentication knows; or `client.address`.
    /// Several values of a header are joined with semicolons. Without it, nothing happens.
    #[arg(optional)]
    from_context: String,
    /// The type for `convert`: `int`, `double` or `string`. A value that is no number stays as it is.
    #[arg(optional)]
    converted_type: String,
}

impl AttributesArguments {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        for (at, action) in self.actions.iter().enumerate() {
            if !action.key.is_empty() {
                continue;
            }
            let name = &action.action;
            let missing = match &*name.to_lowercase() {
                "delete" | "hash" if !action.pattern.is_empty() => continue,
                "delete" | "hash" => "at least the key argument or the pattern argument",
                _ => "the key argument",
            };
            let error = format!("the action {name} requires {missing} to be set");
            errors.push(&["action"], format!("validation failed for action block number {}: {error}", at + 1));
        }
        errors.into_result()
    }

    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        if let Err(message) = Program::new(&self.actions) {
            errors.push(&["action"], message);
        }
        let selection = &self.selection;
        for (is_wired, made) in [
            (!self.output.traces.is_empty(), selection.compile::<corten_otlp::Span>()),
            (!self.output.logs.is_empty(), selection.compile::<corten_otlp::LogRecord>()),
            (!self.output.metrics.is_empty(), selection.compile::<corten_otlp::Metric>()),
        ] {
            if let (true, Err(message)) = (is_wired, made) {
                errors.push(&["include", "exclude", "output"], message);
            }
        }
        errors.into_result()
    }
}

/// The component.
pub(crate) type AttributesProcessor = Processor<Attributes>;

/// What makes it.
pub(crate) struct Attributes;

impl Kind for Attributes {
    const NAME: &'static str = "otelcol.processor.attributes";
    const TYPE: &'static str = "attributes";
    type Arguments = AttributesArguments;

    fn output(arguments: &AttributesArguments) -> &Output {
        &arguments.output
    }

    fn processes(arguments: &AttributesArguments, _: &Context<Processor<Self>>) -> Result<Processes, Error> {
        let program = Arc::new(Program::new(&arguments.actions)?);
        let AttributesArguments { selection, output, .. } = arguments;
        Ok(Processes {
            traces: (!output.traces.is_empty()).then(|| change(&program, selection)).transpose()?,
            metrics: (!output.metrics.is_empty()).then(|| change(&program, selection)).transpose()?,
            logs: (!output.logs.is_empty()).then(|| change(&program, selection)).transpose()?,
        })
    }
}

fn change<S>(program: &Arc<Program>, selection: &Selection) -> Result<Arc<dyn Process<S>>, Error>
where
    S: OtlpSignal<Record: Selected + Attributed>,
{
    let filter = selection.compile::<S::Record>()?;
    Ok(Arc::new(Change { program: Arc::clone(program), filter }))
}

/// Changes the records of a signal.
struct Change {
    program: Arc<Program>,
    filter: Filter,
}

impl<S> Process<S> for Change
where
    S: OtlpSignal<Record: Selected + Attributed>,
{
    fn process(&self, mut batch: S::Batch, _: &mut Pass<'_>) -> Result<S::Batch, ConsumeError> {
        if self.program.steps.is_empty() {
            return Ok(batch);
        }
        let context = Arc::clone(&batch.context);
        let mut scratch = Scratch::default();
        let mut data = batch.take_data();
        for part in &mut data {
            let mut placed = Placed::new(&self.program, &context, &mut part.arena);
            self.filter.each(part, &mut scratch, |record, arena, scratch| {
                record.each_attributes(|attributes| self.program.run(attributes, arena, &mut placed, scratch));
            });
        }
        Ok(batch.with(data))
    }
}

/// The actions, compiled.
#[derive(Debug)]
struct Program {
    steps: Vec<Step>,
    /// Texts that the steps write.
    texts: Vec<Box<[u8]>>,
    contexts: Vec<FromContext>,
}

/// Number of a text in [`Program::texts`].
type TextId = usize;

#[derive(Debug)]
enum Step {
    Put {
        key: TextId,
        source: Source,
        inserts: bool,
        updates: bool,
    },
    /// A copy whose original is deleted after it: nothing but the key changes.
    Rename {
        from: TextId,
        to: TextId,
        updates: bool,
    },
    Delete {
        key: TextId,
        pattern: Option<GoRegex>,
    },
    Hash {
        key: TextId,
        pattern: Option<GoRegex>,
    },
    Extract {
        key: TextId,
        pattern: GoRegex,
        names: Vec<TextId>,
    },
    Convert {
        key: TextId,
        to: Type,
    },
}

#[derive(Debug)]
enum Source {
    Plain(Value),
    Text(TextId),
    /// A list or a map.
    Constant(Box<Constant>),
    Attribute(TextId),
    /// Number in [`Program::contexts`].
    Context(usize),
}

#[derive(Clone, Copy, Debug)]
enum Type {
    Int,
    Double,
    Str,
}

#[derive(Debug)]
enum FromContext {
    Address,
    Metadata(String),
    Auth(String),
}

impl FromContext {
    fn new(name: &str) -> Self {
        match (name, name.strip_prefix("metadata."), name.strip_prefix("auth.")) {
            ("client.address", ..) => FromContext::Address,
            (_, Some(name), _) => FromContext::Metadata(name.to_owned()),
            (_, _, Some(name)) => FromContext::Auth(name.to_owned()),
            _ => FromContext::Metadata(name.to_owned()),
        }
    }

    fn find(&self, context: &RequestContext) -> Option<String> {
        match self {
            FromContext::Address => {
                let address = context.peer.map(|peer| IpAddr::to_canonical(&peer.ip()).to_string());
                Some(address.unwrap_or_default())
            }
            FromContext::Metadata(name) => {
                let values = context.metadata.get(name);
                (!values.is_empty()).then(|| values.join(";"))
            }
            FromContext::Auth(name) => context.auth.as_ref()?.attribute(name),
        }
    }
}

impl Program {
    fn new(actions: &[Action]) -> Result<Self, String> {
        let mut program = Program { steps: Vec::new(), texts: Vec::new(), contexts: Vec::new() };
        for (at, action) in actions.iter().enumerate() {
            let step = program.step(action).map_err(|error| match error {
                Invalid::WithKey(rest) => format!("error with key {:?} ({at}-th action): {rest}", action.key),
                Invalid::Other(error) => error,
            })?;
            program.push(step);
        }
        Ok(program)
    }

    fn push(&mut self, step: Step) {
        if let Step::Delete { key, pattern: None } = &step
            && let Some(Step::Put { key: to, source: Source::Attribute(from), inserts: true, updates }) =
                self.steps.last()
            && from == key
            && to != key
        {
            let (from, to, updates) = (*from, *to, *updates);
            self.steps.pop();
            self.steps.push(Step::Rename { from, to, updates });
            return;
        }
        self.steps.push(step);
    }

    fn text(&mut self, text: &[u8]) -> TextId {
        let known = self.texts.iter().position(|known| **known == *text);
        known.unwrap_or_else(|| {
            self.texts.push(text.into());
            self.texts.len() - 1
        })
    }

    fn step(&mut self, action: &Action) -> Result<Step, Invalid> {
        let name = action.action.to_lowercase();
        let value = action.value.as_ref().map(Constant::new).transpose()?;
        let value = value.filter(|value| value.value != Value::Empty);
        let sources = [value.is_some(), !action.from_attribute.is_empty(), !action.from_context.is_empty()];
        let sources = sources.into_iter().filter(|is_there| *is_there).count();
        let unused = |field: &str| {
            let error = "error creating AttrProc. Action";
            Err(Invalid::WithKey(format!("{error} \"{name}\" does not use {field}. This must not be specified")))
        };
        let all_unused = |fields: &str| {
            let error = "error creating AttrProc. Action";
            Err(Invalid::WithKey(format!("{error} \"{name}\" does not use {fields}. These must not be specified")))
        };
        let missing = |field: &str| {
            let error = "error creating AttrProc due to missing required field";
            Err(Invalid::WithKey(format!("{error} \"{field}\" for action \"{name}\"")))
        };
        let pattern = || {
            GoRegex::new(&action.pattern).map_err(|_| {
                let error = "error creating AttrProc. Field \"pattern\" has invalid pattern";
                Invalid::WithKey(format!("{error}: \"{}\"", action.pattern))
            })
        };
        let key = self.text(action.key.as_bytes());
        Ok(match &*name {
            "insert" | "update" | "upsert" => {
                if sources == 0 {
                    let error = "error creating AttrProc. Either field";
                    let fields = r#""value", "from_attribute", "from_context", or "default_value" must be specified"#;
                    return Err(Invalid::WithKey(format!("{error} {fields}")));
                }
                if sources > 1 {
                    let error = "error creating AttrProc due to multiple value sources being set";
                    return Err(Invalid::WithKey(error.to_owned()));
                }
                if !action.pattern.is_empty() {
                    return unused("the \"pattern\" field");
                }
                if !action.converted_type.is_empty() {
                    return unused("the \"converted_type\" field");
                }
                let source = match value {
                    Some(Constant { arena, value: Value::Str(text) }) => Source::Text(self.text(arena.bytes(text))),
                    Some(constant) if matches!(constant.value, Value::List(_) | Value::Map(_) | Value::Bytes(_)) => {
                        Source::Constant(Box::new(constant))
                    }
                    Some(constant) => Source::Plain(constant.value),
                    None if action.from_context.is_empty() => {
                        Source::Attribute(self.text(action.from_attribute.as_bytes()))
                    }
                    None => {
                        self.contexts.push(FromContext::new(&action.from_context));
                        Source::Context(self.contexts.len() - 1)
                    }
                };
                Step::Put { key, source, inserts: name != "update", updates: name != "insert" }
            }
            "delete" | "hash" => {
                if value.is_some() || !action.from_attribute.is_empty() {
                    return all_unused("\"value\" or \"from_attribute\" field");
                }
                let pattern = if action.pattern.is_empty() { None } else { Some(pattern()?) };
                if !action.converted_type.is_empty() {
                    return unused("the \"converted_type\" field");
                }
                if name == "hash" { Step::Hash { key, pattern } } else { Step::Delete { key, pattern } }
            }
            "extract" => {
                if sources > 0 {
                    return all_unused("a value source field");
                }
                if action.pattern.is_empty() {
                    return missing("pattern");
                }
                if !action.converted_type.is_empty() {
                    return unused("the \"converted_type\" field");
                }
                let pattern = pattern()?;
                let groups = |what: &str| {
                    let error = "error creating AttrProc. Field \"pattern\" contains";
                    Invalid::WithKey(format!("{error} {what}"))
                };
                if pattern.group_count() == 0 {
                    return Err(groups("no named matcher groups"));
                }
                let mut names = Vec::with_capacity(pattern.group_count());
                for name in pattern.group_names() {
                    let name = name.filter(|name| !name.is_empty());
                    let name = name.ok_or_else(|| groups("at least one unnamed matcher group"))?;
                    names.push(self.text(name.as_bytes()));
                }
                Step::Extract { key, pattern, names }
            }
            "convert" => {
                if sources > 0 || !action.pattern.is_empty() {
                    return all_unused("value sources or \"pattern\" field");
                }
                let to = match &*action.converted_type {
                    "string" => Type::Str,
                    "int" => Type::Int,
                    "double" => Type::Double,
                    "" => return missing("converted_type"),
                    other => {
                        let error = "error creating AttrProc due to invalid value";
                        let field = "in field \"converted_type\" for action";
                        return Err(Invalid::WithKey(format!("{error} \"{other}\" {field} \"{name}\"")));
                    }
                };
                Step::Convert { key, to }
            }
            _ => {
                let error = format!("error creating AttrProc due to unsupported action {name:?}");
                return Err(Invalid::WithKey(error));
            }
        })
    }

    fn run(&self, attributes: &mut Map, arena: &mut Arena, placed: &mut Placed, scratch: &mut Scratch) {
        for step in &self.steps {
            match step {
                Step::Rename { from, to, updates } => self.rename(*from, *to, *updates, attributes, arena, placed),
                Step::Put { key, source, inserts, updates } => {
                    let there = arena.position(*attributes, &self.texts[*key]);
                    if !(if there.is_some() { *updates } else { *inserts }) {
                        continue;
                    }
                    let value = match source {
                        Source::Plain(value) => *value,
                        Source::Text(text) => Value::Str(placed.text(self, *text, arena)),
                        Source::Constant(constant) => arena.carry(&constant.arena, constant.value),
                        Source::Attribute(from) => match arena.get(*attributes, &self.texts[*from]) {
                            Some(value) => copied(value, arena),
                            None => continue,
                        },
                        Source::Context(context) => match placed.contexts[*context] {
                            Some(text) => Value::Str(text),
                            None => continue,
                        },
                    };
                    match there {
                        Some(at) => arena.pairs_mut(*attributes)[at].value = value,
                        None => {
                            let key = placed.text(self, *key, arena);
                            arena.push(attributes, key, value);
                        }
                    }
                }
                Step::Delete { key, pattern } => {
                    arena.remove(attributes, &self.texts[*key]);
                    if let Some(pattern) = pattern {
                        let Scratch { lossy, .. } = scratch;
                        arena.retain(attributes, |arena, pair| !pattern.is_match_bytes(arena.bytes(pair.key), lossy));
                    }
                }
                Step::Hash { key, pattern } => {
                    if let Some(at) = arena.position(*attributes, &self.texts[*key]) {
                        hash(*attributes, at, arena);
                    }
                    if let Some(pattern) = pattern {
                        for at in 0..attributes.len() {
                            let key = arena.pairs(*attributes)[at].key;
                            if pattern.is_match_bytes(arena.bytes(key), &mut scratch.lossy) {
                                hash(*attributes, at, arena);
                            }
                        }
                    }
                }
                Step::Extract { key, pattern, names } => {
                    let Some(Value::Str(text)) = arena.get(*attributes, &self.texts[*key]) else { continue };
                    let Scratch { lossy, groups, .. } = scratch;
                    if !pattern.captures_bytes(arena.bytes(text), lossy, groups) {
                        continue;
                    }
                    for (group, name) in names.iter().enumerate() {
                        let found = groups.get(group + 1).map_or(Text::EMPTY, |range| arena.part(text, range));
                        match arena.position(*attributes, &self.texts[*name]) {
                            Some(at) => arena.pairs_mut(*attributes)[at].value = Value::Str(found),
                            None => {
                                let name = placed.text(self, *name, arena);
                                arena.push(attributes, name, Value::Str(found));
                            }
                        }
                    }
                }
                Step::Convert { key, to } => {
                    if let Some(at) = arena.position(*attributes, &self.texts[*key]) {
                        let value = converted(arena.pairs(*attributes)[at].value, *to, arena, scratch);
                        arena.pairs_mut(*attributes)[at].value = value;
                    }
                }
            }
        }
    }

    #[inline]
    fn rename(
        &self,
        from: TextId,
        to: TextId,
        updates: bool,
        attributes: &mut Map,
        arena: &mut Arena,
        placed: &mut Placed,
    ) {
        let Some(at) = arena.position(*attributes, &self.texts[from]) else { return };
        match arena.position(*attributes, &self.texts[to]) {
            None => {
                let to = placed.text(self, to, arena);
                arena.pairs_mut(*attributes)[at].key = to;
            }
            Some(there) => {
                if updates {
                    let pairs = arena.pairs_mut(*attributes);
                    pairs[there].value = pairs[at].value;
                }
                arena.remove(attributes, &self.texts[from]);
            }
        }
    }
}

/// Why an action is refused.
enum Invalid {
    /// The key and the number of the action are to stand before it.
    WithKey(String),
    Other(String),
}

impl From<String> for Invalid {
    fn from(error: String) -> Self {
        Invalid::Other(error)
    }
}

/// Where in an arena the texts of a program are.
struct Placed {
    texts: Vec<Option<Text>>,
    contexts: Vec<Option<Text>>,
}

impl Placed {
    fn new(program: &Program, context: &RequestContext, arena: &mut Arena) -> Self {
        let contexts = program.contexts.iter();
        let contexts = contexts.map(|from| from.find(context).map(|text| arena.own(text.as_bytes())));
        Placed { contexts: contexts.collect(), texts: vec![None; program.texts.len()] }
    }

    #[inline]
    fn text(&mut self, program: &Program, id: TextId, arena: &mut Arena) -> Text {
        *self.texts[id].get_or_insert_with(|| arena.own(&program.texts[id]))
    }
}

/// A value that can be changed without the other one.
fn copied(value: Value, arena: &mut Arena) -> Value {
    match value {
        Value::List(list) => {
            let mut values = arena.values(list).to_vec();
            for value in &mut values {
                *value = copied(*value, arena);
            }
            Value::List(arena.list(&values))
        }
        Value::Map(map) => {
            let mut pairs = arena.pairs(map).to_vec();
            for pair in &mut pairs {
                pair.value = copied(pair.value, arena);
            }
            Value::Map(arena.map(&pairs))
        }
        plain => plain,
    }
}

/// Replaces the value of a pair with a hash of it.
fn hash(attributes: Map, at: usize, arena: &mut Arena) {
    let sum = match arena.pairs(attributes)[at].value {
        Value::Str(text) => Some(digest(&SHA256, arena.bytes(text))),
        Value::Bool(value) => Some(digest(&SHA256, &[u8::from(value)])),
        Value::Int(value) => Some(digest(&SHA256, &value.to_le_bytes())),
        Value::Double(value) => Some(digest(&SHA256, &value.to_bits().to_le_bytes())),
        _ => None,
    };
    let text = sum.map_or(Text::EMPTY, |sum| {
        let mut hex = [0; 64];
        for (two, byte) in hex.chunks_exact_mut(2).zip(sum.as_ref()) {
            two.copy_from_slice(&[
                b"0123456789abcdef"[usize::from(byte >> 4)],
                b"0123456789abcdef"[usize::from(byte & 15)],
            ]);
        }
        arena.own(&hex)
    });
    arena.pairs_mut(attributes)[at].value = Value::Str(text);
}

/// A value as one of another type; the same one where that cannot be.
fn converted(value: Value, to: Type, arena: &mut Arena, scratch: &mut Scratch) -> Value {
    match (to, value) {
        (Type::Str, Value::Str(_)) => value,
        (Type::Str, value) => {
            scratch.text.clear();
            arena.write_text(value, &mut scratch.text);
            Value::Str(arena.own(&scratch.text))
        }
        (Type::Int, Value::Double(double)) => {
            // Beyond what an integer holds, processors of the reference answer with the lowest one.
            let fits = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&double);
            Value::Int(if fits { double as i64 } else { i64::MIN })
        }
        (Type::Int, Value::Bool(truth)) => Value::Int(i64::from(truth)),
        (Type::Int, Value::Str(text)) => corten_golang::parse_int(arena.bytes(text), 10).map_or(value, Value::Int),
        (Type::Double, Value::Int(int)) => Value::Double(int as f64),
        (Type::Double, Value::Bool(truth)) => Value::Double(f64::from(truth)),
        (Type::Double, Value::Str(text)) => corten_golang::parse_float(arena.bytes(text)).map_or(value, Value::Double),
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_component::Definition;
    use corten_otlp::{AuthData, LogRecord};
    use corten_testkit::{OtlpSink, Unit, host, otlp};

    use crate::process::{hostile, recorded};

    #[tokio::test]
    async fn attributes_change_as_they_do_in_the_reference() {
        recorded::check::<AttributesProcessor>(include_str!("../../tests/data/processor_attributes.json")).await;
    }

    #[tokio::test]
    async fn hostile_telemetry_does_no_harm() {
        hostile::survives::<AttributesProcessor>(&[
            "",
            r#"
            action {
                key            = "new"
                action         = "upsert"
                from_attribute = "a"
            }
            action {
                key     = "a"
                pattern = "."
                action  = "delete"
            }"#,
            r#"
            action {
                pattern = "e|^$"
                action  = "hash"
            }
            action {
                key     = "service.name"
                pattern = "(?P<a>.)?(?P<service>.*)"
                action  = "extract"
            }
            action {
                key            = "a"
                action         = "convert"
                converted_type = "int"
            }
            action {
                key            = "service.name"
                action         = "convert"
                converted_type = "string"
            }"#,
        ])
        .await;
    }

    #[derive(Debug)]
    struct Known;

    impl AuthData for Known {
        fn attribute(&self, name: &str) -> Option<String> {
            (name == "subject").then(|| "somebody".to_owned())
        }

        fn names(&self) -> Vec<String> {
            vec!["subject".to_owned()]
        }

        fn as_any(&self) -> &dyn std::any::Any {
            self
        }
    }

    const RECORD: &str = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"x"}}]}]}]}"#;

    #[tokio::test]
    async fn the_peer_and_what_its_authentication_knows_become_attributes() {
        let sink = OtlpSink::default();
        let action = |key: &str, from: &str| {
            format!("action {{\nkey = {key:?}\naction = \"insert\"\nfrom_context = {from:?}\n}}\n")
        };
        let body = [
            action("peer", "client.address"),
            action("who", "auth.subject"),
            action("none", "auth.nothing"),
            "output {\nlogs = [sink]\n}".to_owned(),
        ];
        let definition = Definition::of::<AttributesProcessor>();
        let host = host("otelcol.processor.attributes.a");
        let unit = Unit::start_with(host, &definition, &body.concat(), &[("sink", sink.value())]).await.unwrap();
        for (peer, want) in [(Some("[::ffff:10.0.0.7]:4317"), "10.0.0.7"), (Some("[fe80::1]:1"), "fe80::1"), (None, "")]
        {
            let mut batch = otlp::<LogRecord>(RECORD);
            batch.context = Arc::new(RequestContext {
                peer: peer.map(|peer| peer.parse().unwrap()),
                auth: Some(Arc::new(Known)),
                ..RequestContext::default()
            });
            unit.world.consumer("input").logs.consume(batch).await.unwrap();
            let json = sink.batches().pop().unwrap().json;
            let attributes = format!(
                r#""attributes":[{{"key":"peer","value":{{"stringValue":"{want}"}}}},{{"key":"who","value":{{"stringValue":"somebody"}}}}]"#
            );
            assert!(json.contains(&attributes), "{json}");
        }
    }

    #[tokio::test]
    async fn an_action_without_a_key_is_refused() {
        let sink = OtlpSink::default();
        for (body, want) in [
            ("action = \"insert\"\nvalue = 1", "block number 1: the action insert requires the key argument to be set"),
            (
                "action = \"HASH\"",
                "block number 1: the action HASH requires at least the key argument or the pattern argument to be set",
            ),
        ] {
            let body = format!("action {{\n{body}\n}}\noutput {{\nlogs = [sink]\n}}");
            let definition = Definition::of::<AttributesProcessor>();
            let host = host("otelcol.processor.attributes.a");
            let error = Unit::start_with(host, &definition, &body, &[("sink", sink.value())]).await.unwrap_err();
            assert!(error.contains(want), "{error}");
        }
    }
}
