//! Answers queries that were checked (GraphQL, October 2021, section 6).

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value as Json};

use super::check::LEVELS_MAX;
use super::fault::{Fault, VALIDATION, answer};
use super::parse::{Argument, Data, Directive, Document, Field, Operation, Selection, Value};
use super::schema::{self, Kind};

/// The most values of an answer, each thing of a list with its own: what a query may cost.
const VALUES_MAX: usize = 200_000;
/// The most bytes of an answer.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// Where values come from.
pub(super) trait Source: Sync {
    /// What is asked of the program: the fields of `Alloy` that are texts.
    fn alloy(&self, field: &str) -> Option<&str>;

    /// Whether the program runs a configuration.
    fn is_ready(&self) -> bool;

    /// The ids of all components.
    fn ids(&self) -> Vec<String>;

    /// A component, with as much of it as is wanted.
    fn component(&self, id: &str, wanted: Wanted) -> impl Future<Output = Option<Component>> + Send;
}

/// The parts of a component that are made only when they are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Wanted {
    pub(super) arguments: bool,
    pub(super) exports: bool,
    pub(super) debug_info: bool,
}

/// A component as queries see it.
#[derive(Clone, Debug, Default)]
pub(super) struct Component {
    pub(super) id: String,
    pub(super) name: String,
    /// What its health says.
    pub(super) message: String,
    /// When its health changed.
    pub(super) updated: String,
    pub(super) arguments: String,
    pub(super) exports: Option<String>,
    pub(super) debug_info: Option<String>,
}

/// The values of variables.
type Variables<'q> = HashMap<&'q str, Json>;

/// The operation of that name; of a query that has one operation alone, that one, where no name is given.
pub(super) fn operation<'d, 'q>(document: &'d Document<'q>, name: &str) -> Result<&'d Operation<'q>, Fault> {
    let found = match (name, document.operations.as_slice()) {
        ("", [only]) => Some(only),
        _ => document.operations.iter().find(|operation| operation.name == name),
    };
    found.ok_or_else(|| Fault::new(format!("operation {name} not found")).code(VALIDATION))
}

/// The values of the variables of an operation. Those that it does not have are passed over.
pub(super) fn variables<'q>(operation: &Operation<'q>, given: &Map<String, Json>) -> Result<Variables<'q>, Fault> {
    let mut values = HashMap::new();
    for variable in &operation.variables {
        let fault = |why: String| Fault::new(why).path(&["variable", variable.name]).code(VALIDATION);
        let value = match (given.get(variable.name), &variable.default) {
            (Some(value), _) => value.clone(),
            (None, Some(default)) => constant(default),
            (None, None) if variable.ty.ends_with('!') => return Err(fault("must be defined".to_owned())),
            (None, None) => continue,
        };
        let ty = schema::name_in(&variable.ty);
        // The reference calls numbers strings, which it takes for either.
        let kind = match &value {
            Json::Null if variable.ty.ends_with('!') => return Err(fault("cannot be null".to_owned())),
            Json::Null => "",
            Json::Bool(_) if ty != "Boolean" => "bool",
            Json::Number(_) | Json::String(_) if ty == "Boolean" => "string",
            Json::Array(_) => "slice",
            Json::Object(_) => "map",
            _ => "",
        };
        if !kind.is_empty() {
            return Err(fault(format!("cannot use {kind} as {ty}")));
        }
        values.insert(variable.name, value);
    }
    Ok(values)
}

/// A value without variables, as JSON.
fn constant(value: &Value<'_>) -> Json {
    match &value.data {
        Data::Int(text) | Data::Float(text) | Data::Enum(text) => (*text).into(),
        Data::Text(text) => text.as_ref().into(),
        Data::Bool(truth) => (*truth).into(),
        Data::Null | Data::Variable(_) => Json::Null,
        Data::List(items) => items.iter().map(constant).collect(),
        Data::Object(fields) => {
            Json::Object(fields.iter().map(|field| (field.name.to_owned(), constant(&field.value))).collect())
        }
    }
}

/// Answers an operation.
pub(super) async fn run<S: Source>(
    document: &Document<'_>,
    operation: &Operation<'_>,
    variables: Variables<'_>,
    source: &S,
) -> String {
    let mut run = Run { document, variables, source, out: String::new(), faults: Vec::new(), left: VALUES_MAX };
    match run.query(operation).await {
        Ok(()) => answer(&run.faults, &run.out),
        Err(limit) => answer(&[limit], "null"),
    }
}

struct Run<'r, 'q, S> {
    document: &'r Document<'q>,
    variables: Variables<'r>,
    source: &'r S,
    out: String,
    faults: Vec<Fault>,
    /// How many more values there may be.
    left: usize,
}

/// Fields of one name in the answer.
struct Group<'r, 'q> {
    key: &'q str,
    first: &'r Field<'q>,
    /// The selections of all of them.
    within: Vec<&'r [Selection<'q>]>,
}

impl<'r, 'q, S: Source> Run<'r, 'q, S> {
    fn spend(&mut self) -> Result<(), Fault> {
        self.left = self.left.checked_sub(1).ok_or_else(|| Fault::new("the answer has too many values"))?;
        match self.out.len() <= ANSWER_BYTES_MAX {
            true => Ok(()),
            false => Err(Fault::new("the answer is too long")),
        }
    }

    /// The fields that are asked for, those of one name together.
    fn groups(&mut self, sets: &[&'r [Selection<'q>]]) -> Result<Vec<Group<'r, 'q>>, Fault> {
        let (mut groups, mut numbers, mut entered) = (Vec::new(), HashMap::new(), HashSet::new());
        for selections in sets {
            self.collect(selections, 0, &mut entered, &mut numbers, &mut groups)?;
        }
        Ok(groups)
    }

    fn collect(
        &mut self,
        selections: &'r [Selection<'q>],
        level: usize,
        entered: &mut HashSet<&'q str>,
        numbers: &mut HashMap<&'q str, usize>,
        groups: &mut Vec<Group<'r, 'q>>,
    ) -> Result<(), Fault> {
        if level > LEVELS_MAX {
            return Err(Fault::new(format!("the query is more than {LEVELS_MAX} levels deep")));
        }
        for selection in selections {
            self.spend()?;
            let directives = match selection {
                Selection::Field(field) => &field.directives,
                Selection::Inline { directives, .. } | Selection::Spread { directives, .. } => directives,
            };
            if !self.is_included(directives) {
                continue;
            }
            match selection {
                Selection::Field(field) => {
                    let number = *numbers.entry(field.alias).or_insert_with(|| {
                        groups.push(Group { key: field.alias, first: field, within: Vec::new() });
                        groups.len() - 1
                    });
                    groups[number].within.push(&field.selections);
                }
                // A fragment stands only where its type is that of the object.
                Selection::Inline { selections, .. } => {
                    self.collect(selections, level + 1, entered, numbers, groups)?;
                }
                Selection::Spread { name, .. } => {
                    let document = self.document;
                    let fragment = document.fragments.iter().find(|fragment| fragment.name == *name);
                    if let Some(fragment) = fragment.filter(|_| entered.insert(name)) {
                        self.collect(&fragment.selections, level + 1, entered, numbers, groups)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn is_included(&self, directives: &[Directive<'_>]) -> bool {
        let says = |name: &str| {
            let directive = directives.iter().find(|directive| directive.name == name)?;
            self.argument(&directive.arguments, "if").and_then(|value| value.as_bool())
        };
        !says("skip").unwrap_or(false) && says("include").unwrap_or(true)
    }

    fn argument(&self, arguments: &[Argument<'_>], name: &str) -> Option<Json> {
        let argument = arguments.iter().find(|argument| argument.name == name)?;
        match argument.value.data {
            Data::Variable(name) => self.variables.get(name).cloned(),
            _ => Some(constant(&argument.value)),
        }
    }

    /// The text of an argument; a number stands for its digits.
    fn text_argument(&self, arguments: &[Argument<'_>], name: &str) -> Option<String> {
        match self.argument(arguments, name)? {
            Json::String(text) => Some(text),
            Json::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// Writes the name of a field, after what stands before it.
    fn key(&mut self, nth: usize, key: &str) {
        self.out.push(if nth == 0 { '{' } else { ',' });
        push_text(&mut self.out, key);
        self.out.push(':');
    }

    fn end_object(&mut self, groups: &[Group<'_, '_>]) {
        self.out.push_str(if groups.is_empty() { "{}" } else { "}" });
    }

    fn text(&mut self, text: Option<&str>) {
        match text {
            Some(text) => push_text(&mut self.out, text),
            None => self.out.push_str("null"),
        }
    }

    async fn query(&mut self, operation: &'r Operation<'q>) -> Result<(), Fault> {
        let groups = self.groups(&[&operation.selections])?;
        for (nth, group) in groups.iter().enumerate() {
            self.spend()?;
            self.key(nth, group.key);
            match group.first.name {
                "__typename" => self.text(Some("Query")),
                "alloy" => self.alloy(group)?,
                "components" => self.components(group).await?,
                "component" => {
                    let id = self.text_argument(&group.first.arguments, "id");
                    self.component_of_id(id.as_deref(), group).await?;
                }
                "__schema" => self.thing(&Thing::Schema, &group.within, 0)?,
                "__type" => {
                    let name = self.text_argument(&group.first.arguments, "name").unwrap_or_default();
                    match schema::ty(&name) {
                        Some(ty) => self.thing(&Thing::Type(ty.name), &group.within, 0)?,
                        None => self.text(None),
                    }
                }
                _ => self.text(None),
            }
        }
        self.end_object(&groups);
        Ok(())
    }

    fn alloy(&mut self, group: &Group<'r, 'q>) -> Result<(), Fault> {
        let groups = self.groups(&group.within)?;
        for (nth, group) in groups.iter().enumerate() {
            self.spend()?;
            self.key(nth, group.key);
            let source = self.source;
            match group.first.name {
                "__typename" => self.text(Some("Alloy")),
                "isReady" => self.out.push_str(if source.is_ready() { "true" } else { "false" }),
                name => self.text(source.alloy(name)),
            }
        }
        self.end_object(&groups);
        Ok(())
    }

    async fn components(&mut self, group: &Group<'r, 'q>) -> Result<(), Fault> {
        let groups = self.groups(&group.within)?;
        let wanted = wanted(&groups);
        self.out.push('[');
        let mut first = true;
        for id in self.source.ids() {
            // All that a component tells takes its time, and others wait for this thread.
            tokio::task::yield_now().await;
            // What is gone meanwhile is left out.
            let Some(component) = self.source.component(&id, wanted).await else { continue };
            if !std::mem::take(&mut first) {
                self.out.push(',');
            }
            self.component(&component, &groups)?;
        }
        self.out.push(']');
        Ok(())
    }

    async fn component_of_id(&mut self, id: Option<&str>, group: &Group<'r, 'q>) -> Result<(), Fault> {
        let groups = self.groups(&group.within)?;
        let component = match id {
            Some(id) => self.source.component(id, wanted(&groups)).await,
            None => None,
        };
        match component {
            Some(component) => self.component(&component, &groups),
            None => {
                self.faults.push(Fault::new("component not found").path(&[group.key]).at(group.first.at));
                self.text(None);
                Ok(())
            }
        }
    }

    fn component(&mut self, component: &Component, groups: &[Group<'r, 'q>]) -> Result<(), Fault> {
        for (nth, group) in groups.iter().enumerate() {
            self.spend()?;
            self.key(nth, group.key);
            match group.first.name {
                "__typename" => self.text(Some("Component")),
                "id" => self.text(Some(&component.id)),
                "name" => self.text(Some(&component.name)),
                "arguments" => self.text(Some(&component.arguments)),
                "exports" => self.text(component.exports.as_deref()),
                "debugInfo" => self.text(component.debug_info.as_deref()),
                "health" => self.health(component, group)?,
                _ => self.text(None),
            }
        }
        self.end_object(groups);
        Ok(())
    }

    fn health(&mut self, component: &Component, group: &Group<'r, 'q>) -> Result<(), Fault> {
        let groups = self.groups(&group.within)?;
        for (nth, group) in groups.iter().enumerate() {
            self.spend()?;
            self.key(nth, group.key);
            match group.first.name {
                "__typename" => self.text(Some("Health")),
                "message" => self.text(Some(&component.message)),
                "lastUpdated" => self.text(Some(&component.updated)),
                _ => self.text(None),
            }
        }
        self.end_object(&groups);
        Ok(())
    }

    /// Something of the schema.
    fn thing(&mut self, thing: &Thing, within: &[&'r [Selection<'q>]], level: usize) -> Result<(), Fault> {
        if level > LEVELS_MAX {
            return Err(Fault::new(format!("the query is more than {LEVELS_MAX} levels deep")));
        }
        let groups = self.groups(within)?;
        for (nth, group) in groups.iter().enumerate() {
            self.spend()?;
            self.key(nth, group.key);
            match thing.field(group.first.name) {
                Shown::Text(text) => self.text(text),
                Shown::Truth(truth) => self.out.push_str(if truth { "true" } else { "false" }),
                Shown::Names(names) => {
                    self.list(names.len(), |run, nth| {
                        run.text(Some(names[nth]));
                        Ok(())
                    })?;
                }
                Shown::Thing(Some(thing)) => self.thing(&thing, &group.within, level + 1)?,
                Shown::Thing(None) => self.text(None),
                Shown::Things(things) => {
                    self.list(things.len(), |run, nth| run.thing(&things[nth], &group.within, level + 1))?;
                }
            }
        }
        self.end_object(&groups);
        Ok(())
    }

    fn list(&mut self, length: usize, mut one: impl FnMut(&mut Self, usize) -> Result<(), Fault>) -> Result<(), Fault> {
        self.out.push('[');
        for nth in 0..length {
            if nth > 0 {
                self.out.push(',');
            }
            one(self, nth)?;
        }
        self.out.push(']');
        Ok(())
    }
}

/// The parts that fields of a component ask for.
fn wanted(groups: &[Group<'_, '_>]) -> Wanted {
    let asks = |name: &str| groups.iter().any(|group| group.first.name == name);
    Wanted { arguments: asks("arguments"), exports: asks("exports"), debug_info: asks("debugInfo") }
}

/// Something of the schema that can be asked about.
enum Thing {
    Schema,
    /// A type as it is written.
    Type(&'static str),
    Field(&'static schema::Field),
    Input(&'static schema::Input),
    /// A value of an enumeration.
    Value(&'static str),
    Directive(&'static schema::Directive),
}

/// What is told of it.
enum Shown {
    Text(Option<&'static str>),
    Truth(bool),
    Names(&'static [&'static str]),
    Thing(Option<Thing>),
    Things(Vec<Thing>),
}

impl Thing {
    fn field(&self, name: &str) -> Shown {
        let description = |text: &'static str| Shown::Text(Some(text).filter(|text| !text.is_empty()));
        let inputs = |inputs: &'static [schema::Input]| Shown::Things(inputs.iter().map(Thing::Input).collect());
        match (self, name) {
            (_, "__typename") => Shown::Text(Some(match self {
                Thing::Schema => "__Schema",
                Thing::Type(_) => "__Type",
                Thing::Field(_) => "__Field",
                Thing::Input(_) => "__InputValue",
                Thing::Value(_) => "__EnumValue",
                Thing::Directive(_) => "__Directive",
            })),
            (Thing::Schema, "types") => Shown::Things(schema::TYPES.iter().map(|ty| Thing::Type(ty.name)).collect()),
            (Thing::Schema, "queryType") => Shown::Thing(Some(Thing::Type("Query"))),
            (Thing::Schema, "mutationType" | "subscriptionType") => Shown::Thing(None),
            (Thing::Schema, "directives") => Shown::Things(schema::DIRECTIVES.iter().map(Thing::Directive).collect()),
            (Thing::Type(ty), _) => type_field(ty, name),
            (_, "isDeprecated" | "isRepeatable") => Shown::Truth(false),
            (Thing::Field(field), "name") => Shown::Text(Some(field.name)),
            (Thing::Field(field), "description") => description(field.description),
            (Thing::Field(field), "args") => inputs(field.arguments),
            (Thing::Field(field), "type") => Shown::Thing(Some(Thing::Type(field.ty))),
            (Thing::Input(input), "name") => Shown::Text(Some(input.name)),
            (Thing::Input(input), "description") => description(input.description),
            (Thing::Input(input), "type") => Shown::Thing(Some(Thing::Type(input.ty))),
            (Thing::Input(input), "defaultValue") => Shown::Text(input.default),
            (Thing::Value(value), "name") => Shown::Text(Some(value)),
            (Thing::Directive(directive), "name") => Shown::Text(Some(directive.name)),
            (Thing::Directive(directive), "description") => description(directive.description),
            (Thing::Directive(directive), "locations") => Shown::Names(directive.places),
            (Thing::Directive(directive), "args") => inputs(directive.arguments),
            _ => Shown::Text(None),
        }
    }
}

/// What is told of a type.
fn type_field(written: &'static str, name: &str) -> Shown {
    // What another type is made into has no name and nothing else of its own.
    let (kind, inner) = if let Some(inner) = written.strip_suffix('!') {
        ("NON_NULL", Some(inner))
    } else if let Some(inner) = written.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        ("LIST", Some(inner))
    } else {
        (schema::ty(written).map_or("SCALAR", |ty| ty.kind.as_str()), None)
    };
    let ty = schema::ty(written).filter(|_| inner.is_none());
    match name {
        "kind" => Shown::Text(Some(kind)),
        "ofType" => Shown::Thing(inner.map(Thing::Type)),
        "name" => Shown::Text(ty.map(|ty| ty.name)),
        "description" => Shown::Text(ty.map(|ty| ty.description).filter(|text| !text.is_empty())),
        "isOneOf" => Shown::Truth(false),
        "fields" => {
            let fields = ty.map_or(&[][..], |ty| ty.fields).iter();
            Shown::Things(fields.filter(|field| !field.name.starts_with("__")).map(Thing::Field).collect())
        }
        "enumValues" => {
            let values = ty.filter(|ty| ty.kind == Kind::Enum).map_or(&[][..], |ty| ty.values);
            Shown::Things(values.iter().map(|value| Thing::Value(value)).collect())
        }
        "interfaces" | "possibleTypes" | "inputFields" => Shown::Things(Vec::new()),
        _ => Shown::Text(None),
    }
}

/// Writes a text as JSON does.
fn push_text(out: &mut String, text: &str) {
    out.push_str(&Json::from(text).to_string());
}
