//! Whether a query says what the schema has (GraphQL, October 2021, section 5).
//!
//! The schema has objects and leaves alone: no interfaces, unions or input objects, so that a type is known wherever a field
//! is. Texts of errors, the places that they name and their order are those of the reference's validator, as far as a query
//! has one fault or two.

use std::collections::{HashMap, HashSet};

use super::fault::{Fault, VALIDATION};
use super::parse::{
    Argument, Data, Directive, Document, Field, Fragment, Operation, Place, Selection, Value, Variable,
};
use super::schema::{self, Input, Kind, Type};

/// The most fragments of a query.
const FRAGMENTS_MAX: usize = 100;
/// How deep selections may stand within each other once fragments are in their places.
pub(super) const LEVELS_MAX: usize = 100;
/// The most selections, directives and values that are looked at, each as often as fragments bring it up.
const LOOKS_MAX: usize = 50_000;
/// The most errors that are told. Nobody looks for more.
const FAULTS_MAX: usize = 100;
/// Lists of types that may stand within each other, so that the answer does not outgrow the schema.
const TYPE_LISTS_MAX: usize = 3;

/// All that is wrong with a query.
pub(super) fn check(document: &Document<'_>) -> Vec<Fault> {
    if document.fragments.len() > FRAGMENTS_MAX {
        return vec![Fault::new(format!("the query has more than {FRAGMENTS_MAX} fragments")).code(VALIDATION)];
    }
    let mut check = Check {
        document,
        faults: Vec::new(),
        left: LOOKS_MAX,
        limit: None,
        level: 0,
        operation: None,
        used: HashSet::new(),
        entered: HashSet::new(),
        spread: HashSet::new(),
        cyclic: false,
    };
    check.cyclic = !check.cycles().is_empty();
    check.all();
    match check.limit {
        Some(limit) => vec![limit],
        None => check.faults,
    }
}

struct Check<'d, 'q> {
    document: &'d Document<'q>,
    faults: Vec<Fault>,
    /// How many more selections, directives and values are looked at.
    left: usize,
    /// A limit that the query does not keep to.
    limit: Option<Fault>,
    level: usize,
    /// The operation that is looked at; none while it is a fragment for itself.
    operation: Option<&'d Operation<'q>>,
    /// The variables that the operation uses.
    used: HashSet<&'q str>,
    /// The fragments that were looked at as part of the operation or fragment.
    entered: HashSet<&'q str>,
    /// The fragments that operations use.
    spread: HashSet<&'q str>,
    /// Whether a fragment leads to itself.
    cyclic: bool,
}

/// Two fields that the answer would have under one name.
struct Conflict {
    key: String,
    why: String,
    /// The numbers of the selection sets that they stand in.
    sets: (usize, usize),
    at: Place,
}

impl<'d, 'q> Check<'d, 'q> {
    fn fault(&mut self, message: impl Into<String>, at: Place) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(Fault::invalid(message, at));
        }
    }

    /// Whether there is nothing more to say.
    fn is_done(&self) -> bool {
        self.limit.is_some() || self.faults.len() >= FAULTS_MAX
    }

    /// Whether so many more selections, directives or values may be looked at.
    fn spend(&mut self, looks: usize) -> bool {
        if self.is_done() {
            return false;
        }
        let Some(left) = self.left.checked_sub(looks) else {
            self.limit = Some(Fault::new("the query is too large").code(VALIDATION));
            return false;
        };
        self.left = left;
        true
    }

    /// Whether selections may be looked at that stand a level deeper.
    fn descend(&mut self) -> bool {
        if self.level >= LEVELS_MAX {
            let message = format!("the query is more than {LEVELS_MAX} levels deep");
            self.limit = Some(Fault::new(message).code(VALIDATION));
        }
        if self.limit.is_some() {
            return false;
        }
        self.level += 1;
        true
    }

    fn fragment_named(&self, name: &str) -> Option<&'d Fragment<'q>> {
        self.document.fragments.iter().find(|fragment| fragment.name == name)
    }

    fn all(&mut self) {
        let document = self.document;
        for operation in &document.operations {
            if self.is_done() {
                return;
            }
            self.operation = Some(operation);
            self.entered.clear();
            self.used.clear();
            self.operation(operation);
        }
        self.operation = None;
        let cycles = self.cycles();
        for (nth, fragment) in document.fragments.iter().enumerate() {
            if self.is_done() {
                return;
            }
            self.entered.clear();
            self.fragment(fragment, nth, &cycles);
        }
    }

    fn operation(&mut self, operation: &'d Operation<'q>) {
        let document = self.document;
        for variable in &operation.variables {
            if schema::ty(schema::name_in(&variable.ty)).is_none() {
                self.fault(format!("Unknown type \"{}\".", schema::name_in(&variable.ty)), variable.at);
            }
        }
        for variable in &operation.variables {
            if let Some(default) = &variable.default {
                self.value(default, Some(&variable.ty), false);
            }
            self.directives(&variable.directives, "VARIABLE_DEFINITION");
        }
        self.directives(
            &operation.directives,
            match operation.kind {
                "mutation" => "MUTATION",
                "subscription" => "SUBSCRIPTION",
                _ => "QUERY",
            },
        );
        let root = schema::ty("Query").filter(|_| operation.kind == "query");
        self.selections(root, &operation.selections);

        if root.is_none() {
            self.fault(format!("Schema does not support operation type \"{}\"", operation.kind), operation.at);
        }
        if operation.name.is_empty() && document.operations.len() > 1 {
            self.fault("This anonymous operation must be the only defined operation.", operation.at);
        }
        for Variable { name, at, .. } in &operation.variables {
            if !self.used.contains(name) {
                match operation.name {
                    "" => self.fault(format!("Variable \"${name}\" is never used."), *at),
                    of => self.fault(format!("Variable \"${name}\" is never used in operation \"{of}\"."), *at),
                }
            }
        }
        if root.is_some() && !self.cyclic {
            for conflict in self.conflicts(&[&operation.selections]) {
                self.conflict(&conflict);
            }
        }
        let before = document.operations.iter().take_while(|other| !std::ptr::eq(*other, operation));
        if before.filter(|other| other.name == operation.name).count() > 0 && !operation.name.is_empty() {
            self.fault(format!("There can be only one operation named \"{}\".", operation.name), operation.at);
        }
        let mut seen: HashMap<&str, usize> = HashMap::new();
        for variable in &operation.variables {
            let times = seen.entry(variable.name).or_default();
            *times += 1;
            if *times == 2 {
                self.fault(format!("There can be only one variable named \"${}\".", variable.name), variable.at);
            }
        }
        for variable in &operation.variables {
            if schema::ty(schema::name_in(&variable.ty)).is_some_and(|ty| ty.kind == Kind::Object) {
                let message = format!("Variable \"${}\" cannot be non-input type \"{}\".", variable.name, variable.ty);
                self.fault(message, variable.at);
            }
        }
    }

    fn fragment(&mut self, fragment: &'d Fragment<'q>, nth: usize, cycles: &[(usize, String, Place)]) {
        let ty = schema::ty(fragment.on);
        self.directives(&fragment.directives, "FRAGMENT_DEFINITION");
        self.selections(ty, &fragment.selections);
        match ty {
            None => {
                let names = schema::TYPES.iter().map(|ty| ty.name);
                let message = format!("Unknown type \"{}\".{}", fragment.on, did_you_mean(fragment.on, names));
                self.fault(message, fragment.at);
            }
            Some(ty) if ty.is_leaf() => {
                let message = format!(
                    "Fragment \"{}\" cannot condition on non composite type \"{}\".",
                    fragment.name, fragment.on
                );
                self.fault(message, fragment.at);
            }
            Some(_) => {}
        }
        for (of, message, at) in cycles {
            if *of == nth {
                self.fault(message, *at);
            }
        }
        if !self.spread.contains(fragment.name) {
            self.fault(format!("Fragment \"{}\" is never used.", fragment.name), fragment.at);
        }
        if self.document.fragments[..nth].iter().any(|other| other.name == fragment.name) {
            self.fault(format!("There can be only one fragment named \"{}\".", fragment.name), fragment.at);
        }
    }

    fn selections(&mut self, parent: Option<&'static Type>, selections: &'d [Selection<'q>]) {
        if !self.descend() {
            return;
        }
        for selection in selections {
            if !self.spend(1) {
                break;
            }
            match selection {
                Selection::Field(field) => self.field(parent, field),
                Selection::Inline { at, on, directives, selections } => {
                    self.inline(parent, *at, *on, directives, selections);
                }
                Selection::Spread { at, name, directives } => self.spread(parent, *at, name, directives),
            }
        }
        self.level -= 1;
    }

    fn field(&mut self, parent: Option<&'static Type>, field: &'d Field<'q>) {
        let is_name = field.name == "__typename";
        let known = parent.and_then(|parent| parent.field(field.name)).filter(|_| !is_name);
        let ty =
            if is_name { schema::ty("String") } else { known.and_then(|known| schema::ty(schema::name_in(known.ty))) };
        let inputs = known.map_or(&[][..], |known| known.arguments);
        self.values(&field.arguments, inputs);
        self.directives(&field.directives, "FIELD");
        self.selections(ty, &field.selections);

        let Some(parent) = parent else { return };
        let (name, at) = (field.name, field.at);
        if is_name {
            if !field.selections.is_empty() {
                let message =
                    format!("Field \"{name}\" must not have a selection since type \"String\" has no subfields.");
                self.fault(message, at);
            }
            self.unknown_arguments(&field.arguments, inputs, at, &format!("field \"{}.{name}\"", parent.name));
            return;
        }
        let (Some(known), Some(ty)) = (known, ty) else {
            let names = parent.fields.iter().map(|field| field.name);
            let mean = if parent.is_leaf() { String::new() } else { did_you_mean(name, names) };
            self.fault(format!("Cannot query field \"{name}\" on type \"{}\".{mean}", parent.name), at);
            return;
        };
        self.unknown_arguments(&field.arguments, inputs, at, &format!("field \"{}.{name}\"", parent.name));
        if name.starts_with("__") && !self.cyclic && self.lists_deeper(&field.selections, 0, &mut Vec::new()) {
            self.fault("Maximum introspection depth exceeded", at);
        }
        self.missing_arguments(&field.arguments, inputs, at, &format!("Field \"{name}\""));
        match (ty.is_leaf(), field.selections.is_empty()) {
            (true, false) => {
                let message =
                    format!("Field \"{name}\" must not have a selection since type \"{}\" has no subfields.", ty.name);
                self.fault(message, at);
            }
            (false, true) => {
                let message = format!(
                    "Field \"{name}\" of type \"{}\" must have a selection of subfields. Did you mean \"{name} {{ ... }}\"?",
                    known.ty
                );
                self.fault(message, at);
            }
            _ => {}
        }
        self.repeated_arguments(&field.arguments);
    }

    fn inline(
        &mut self,
        parent: Option<&'static Type>,
        at: Place,
        on: Option<&'q str>,
        directives: &'d [Directive<'q>],
        selections: &'d [Selection<'q>],
    ) {
        let ty = on.map_or(parent, schema::ty);
        self.directives(directives, "INLINE_FRAGMENT");
        self.selections(ty, selections);
        let Some(on) = on else { return };
        match ty {
            None => self.fault(format!("Unknown type \"{on}\"."), at),
            Some(ty) if ty.is_leaf() => {
                self.fault(format!("Fragment cannot condition on non composite type \"{on}\"."), at);
            }
            Some(_) => {
                if let Some(parent) = parent.filter(|parent| !parent.is_leaf() && parent.name != on) {
                    let message = format!(
                        "Fragment cannot be spread here as objects of type \"{}\" can never be of type \"{on}\".",
                        parent.name
                    );
                    self.fault(message, at);
                }
            }
        }
    }

    fn spread(&mut self, parent: Option<&'static Type>, at: Place, name: &'q str, directives: &'d [Directive<'q>]) {
        self.directives(directives, "FRAGMENT_SPREAD");
        if self.operation.is_some() {
            self.spread.insert(name);
        }
        let Some(fragment) = self.fragment_named(name) else {
            self.fault(format!("Unknown fragment \"{name}\"."), at);
            return;
        };
        let ty = schema::ty(fragment.on);
        if self.entered.insert(name) {
            self.directives(&fragment.directives, "FRAGMENT_DEFINITION");
            self.selections(ty, &fragment.selections);
        }
        let (Some(parent), Some(ty)) = (parent, ty) else { return };
        if !parent.is_leaf() && !ty.is_leaf() && parent.name != ty.name {
            let message = format!(
                "Fragment \"{name}\" cannot be spread here as objects of type \"{}\" can never be of type \"{}\".",
                parent.name, ty.name
            );
            self.fault(message, at);
        }
    }

    fn directives(&mut self, directives: &'d [Directive<'q>], place: &str) {
        for directive in directives {
            if !self.spend(1) {
                return;
            }
            let known = schema::directive(directive.name);
            let inputs = known.map_or(&[][..], |known| known.arguments);
            self.values(&directive.arguments, inputs);
            let (name, at) = (directive.name, directive.at);
            let Some(known) = known else {
                self.fault(format!("Unknown directive \"@{name}\"."), at);
                continue;
            };
            self.unknown_arguments(&directive.arguments, inputs, at, &format!("directive \"@{name}\""));
            if !known.places.contains(&place) {
                self.fault(format!("Directive \"@{name}\" may not be used on {place}."), at);
            }
            self.missing_arguments(&directive.arguments, inputs, at, &format!("Directive \"@{name}\""));
            self.repeated_arguments(&directive.arguments);
        }
        let mut seen = HashSet::new();
        for directive in directives {
            if !seen.insert(directive.name) {
                let message = format!("The directive \"@{}\" can only be used once at this location.", directive.name);
                self.fault(message, directive.at);
            }
        }
    }

    fn values(&mut self, arguments: &'d [Argument<'q>], inputs: &'static [Input]) {
        for argument in arguments {
            let input = inputs.iter().find(|input| input.name == argument.name);
            self.value(
                &argument.value,
                input.map(|input| input.ty),
                input.is_some_and(|input| input.default.is_some()),
            );
        }
    }

    fn unknown_arguments(&mut self, arguments: &[Argument<'q>], inputs: &'static [Input], at: Place, of: &str) {
        for argument in arguments {
            if !inputs.iter().any(|input| input.name == argument.name) {
                let mean = did_you_mean(argument.name, inputs.iter().map(|input| input.name));
                self.fault(format!("Unknown argument \"{}\" on {of}.{mean}", argument.name), at);
            }
        }
    }

    fn missing_arguments(&mut self, arguments: &[Argument<'q>], inputs: &'static [Input], at: Place, of: &str) {
        for input in inputs.iter().filter(|input| input.ty.ends_with('!') && input.default.is_none()) {
            if !arguments.iter().any(|argument| argument.name == input.name) {
                let (name, ty) = (input.name, input.ty);
                self.fault(
                    format!("{of} argument \"{name}\" of type \"{ty}\" is required, but it was not provided."),
                    at,
                );
            }
        }
    }

    fn repeated_arguments(&mut self, arguments: &[Argument<'q>]) {
        let mut seen: HashMap<&str, usize> = HashMap::new();
        for argument in arguments {
            let times = seen.entry(argument.name).or_default();
            *times += 1;
            // The same is said once of a name.
            if *times == 2 {
                self.fault(format!("There can be only one argument named \"{}\".", argument.name), argument.at);
            }
        }
    }

    /// A value where one of a type is wanted, or where nothing is known of what is.
    fn value(&mut self, value: &'d Value<'q>, wanted: Option<&str>, has_default: bool) {
        if !self.spend(1) {
            return;
        }
        match &value.data {
            Data::List(items) => {
                let of_items = wanted.and_then(|wanted| {
                    let list = wanted.strip_suffix('!').unwrap_or(wanted);
                    list.strip_prefix('[')?.strip_suffix(']')
                });
                items.iter().for_each(|item| self.value(item, of_items, false));
            }
            Data::Object(fields) => {
                fields.iter().for_each(|field| self.value(&field.value, None, false));
                let mut seen = HashSet::new();
                for field in fields {
                    if !seen.insert(field.name) {
                        self.fault(format!("There can be only one input field named \"{}\".", field.name), field.at);
                    }
                }
            }
            Data::Variable(name) => {
                self.variable(value, name, wanted, has_default);
                return;
            }
            _ => {}
        }
        if let Some(wanted) = wanted {
            self.value_of_type(value, wanted);
        }
    }

    fn variable(&mut self, value: &Value<'q>, name: &'q str, wanted: Option<&str>, has_default: bool) {
        let Some(operation) = self.operation else { return };
        let Some(variable) = operation.variables.iter().find(|variable| variable.name == name) else {
            match operation.name {
                "" => self.fault(format!("Variable \"${name}\" is not defined."), value.at),
                of => self.fault(format!("Variable \"${name}\" is not defined by operation \"{of}\"."), value.at),
            }
            return;
        };
        self.used.insert(name);
        let Some(wanted) = wanted else { return };
        // What has a value where none is given may be null.
        let own_default = variable.default.as_ref().is_some_and(|default| default.data != Data::Null);
        let least = if own_default || has_default { wanted.trim_end_matches('!') } else { wanted };
        if !is_compatible(&variable.ty, least) {
            let message = format!(
                "Variable \"${name}\" of type \"{}\" used in position expecting type \"{wanted}\".",
                variable.ty
            );
            self.fault(message, value.at);
        }
    }

    fn value_of_type(&mut self, value: &Value<'q>, wanted: &str) {
        let name = schema::name_in(wanted);
        let Some(ty) = schema::ty(name) else { return };
        if value.data == Data::Null {
            if wanted.ends_with('!') {
                self.fault(format!("Expected value of type \"{wanted}\", found null."), value.at);
            }
            return;
        }
        // What a time may be is not known here, and no value is of an object's type.
        if name == "Time" || ty.kind == Kind::Object {
            return;
        }
        let is_list = wanted.starts_with('[');
        let fits = match &value.data {
            Data::List(_) => is_list,
            Data::Int(text) if name == "Int" => text.parse::<i64>().is_ok(),
            Data::Int(_) => ["Float", "ID"].contains(&name),
            Data::Float(_) => name == "Float",
            Data::Text(_) => ["String", "ID"].contains(&name),
            Data::Bool(_) => name == "Boolean",
            Data::Enum(text) => ty.values.contains(text),
            Data::Object(fields) => {
                for field in fields {
                    self.fault(format!("Field \"{}\" is not defined by type \"{name}\".", field.name), field.at);
                }
                return;
            }
            Data::Null | Data::Variable(_) => true,
        };
        if fits {
            return;
        }
        let message = match (name, &value.data) {
            (_, Data::Enum(text)) if ty.kind == Kind::Enum => {
                let mean = did_you_mean_value(text, ty.values.iter().copied());
                format!("Value \"{value}\" does not exist in \"{wanted}\" enum.{mean}")
            }
            (_, Data::Text(text)) if ty.kind == Kind::Enum => {
                let mean = did_you_mean_value(text, ty.values.iter().copied());
                format!("Enum \"{wanted}\" cannot represent non-enum value: {value}.{mean}")
            }
            _ if ty.kind == Kind::Enum => format!("Enum \"{wanted}\" cannot represent non-enum value: {value}."),
            _ if is_list => format!("Expected value of type \"{wanted}\", found {value}."),
            ("Int", Data::Int(_)) => format!("Int cannot represent non 32-bit signed integer value: {value}"),
            ("Int", _) => format!("Int cannot represent non-integer value: {value}"),
            ("Float", _) => format!("Float cannot represent non numeric value: {value}"),
            ("String", _) => format!("String cannot represent a non string value: {value}"),
            ("Boolean", _) => format!("Boolean cannot represent a non boolean value: {value}"),
            ("ID", _) => format!("ID cannot represent a non-string and non-integer value: {value}"),
            _ => format!("Expected value of type \"{wanted}\", found {value}."),
        };
        self.fault(message, value.at);
    }

    /// Whether more lists of types stand within each other than may.
    fn lists_deeper(&mut self, selections: &'d [Selection<'q>], lists: usize, within: &mut Vec<&'q str>) -> bool {
        if !self.descend() {
            return false;
        }
        let deeper = selections.iter().any(|selection| {
            if !self.spend(1) {
                return false;
            }
            match selection {
                Selection::Field(field) => {
                    let is_list = ["fields", "interfaces", "possibleTypes", "inputFields"].contains(&field.name);
                    let lists = lists + usize::from(is_list);
                    lists >= TYPE_LISTS_MAX || self.lists_deeper(&field.selections, lists, within)
                }
                Selection::Inline { selections, .. } => self.lists_deeper(selections, lists, within),
                Selection::Spread { name, .. } => {
                    let Some(fragment) = self.fragment_named(name).filter(|_| !within.contains(name)) else {
                        return false;
                    };
                    within.push(name);
                    let deeper = self.lists_deeper(&fragment.selections, lists, within);
                    within.pop();
                    deeper
                }
            }
        });
        self.level -= 1;
        deeper
    }

    /// The fragments that lead to themselves: the number of the first one of the circle, what is said, and where.
    fn cycles(&self) -> Vec<(usize, String, Place)> {
        fn spreads<'q>(selections: &[Selection<'q>], into: &mut Vec<(&'q str, Place)>) {
            for selection in selections {
                match selection {
                    Selection::Field(field) => spreads(&field.selections, into),
                    Selection::Inline { selections, .. } => spreads(selections, into),
                    Selection::Spread { at, name, .. } => into.push((name, *at)),
                }
            }
        }
        struct Walk<'d, 'q> {
            fragments: &'d [Fragment<'q>],
            visited: HashSet<&'q str>,
            path: Vec<&'q str>,
            found: Vec<(usize, String, Place)>,
        }
        impl<'q> Walk<'_, 'q> {
            fn visit(&mut self, first: usize, fragment: &Fragment<'q>) {
                if !self.visited.insert(fragment.name) {
                    return;
                }
                let mut all = Vec::new();
                spreads(&fragment.selections, &mut all);
                self.path.push(fragment.name);
                for (name, at) in all {
                    if self.found.len() >= FAULTS_MAX {
                        break;
                    }
                    if let Some(start) = self.path.iter().position(|step| *step == name) {
                        let via: Vec<String> =
                            self.path[start + 1..].iter().map(|step| format!("\"{step}\"")).collect();
                        let via = if via.is_empty() { String::new() } else { format!(" via {}", via.join(", ")) };
                        self.found.push((first, format!("Cannot spread fragment \"{name}\" within itself{via}."), at));
                    } else if let Some(next) = self.fragments.iter().find(|fragment| fragment.name == name) {
                        self.visit(first, next);
                    }
                }
                self.path.pop();
            }
        }
        let fragments = &self.document.fragments;
        let mut walk = Walk { fragments, visited: HashSet::new(), path: Vec::new(), found: Vec::new() };
        for (nth, fragment) in fragments.iter().enumerate() {
            walk.visit(nth, fragment);
        }
        walk.found
    }

    fn conflict(&mut self, conflict: &Conflict) {
        let message = format!(
            "Fields \"{}\" conflict because {}. Use different aliases on the fields to fetch both if this was intentional.",
            conflict.key, conflict.why
        );
        self.fault(message, conflict.at);
    }

    /// The fields of selection sets that the answer would have in one object under one name although they are different.
    fn conflicts(&mut self, sets: &[&'d [Selection<'q>]]) -> Vec<Conflict> {
        if !self.descend() {
            return Vec::new();
        }
        let mut groups: Vec<(&'q str, Vec<(usize, &'d Field<'q>)>)> = Vec::new();
        let mut numbers = HashMap::new();
        for (set, selections) in sets.iter().enumerate() {
            self.collect(set, selections, &mut HashSet::new(), &mut numbers, &mut groups);
        }
        let mut conflicts = Vec::new();
        for (key, fields) in &groups {
            let Some(((first_set, first), others)) = fields.split_first() else { continue };
            for (set, field) in others {
                // Each argument of the one is looked for among those of the other.
                if conflicts.len() >= FAULTS_MAX || !self.spend(first.arguments.len() * field.arguments.len()) {
                    break;
                }
                let why = if field.name != first.name {
                    format!("\"{}\" and \"{}\" are different fields", first.name, field.name)
                } else if !same_arguments(&first.arguments, &field.arguments) {
                    "they have differing arguments".to_owned()
                } else {
                    continue;
                };
                conflicts.push(Conflict { key: (*key).to_owned(), why, sets: (*first_set, *set), at: field.at });
            }
            let alike: Vec<&(usize, &Field<'q>)> =
                fields.iter().filter(|(_, field)| field.name == first.name).collect();
            let within: Vec<&[Selection<'q>]> = alike.iter().map(|(_, field)| &field.selections[..]).collect();
            if within.iter().all(|selections| selections.is_empty()) {
                continue;
            }
            for inner in self.conflicts(&within) {
                if conflicts.len() >= FAULTS_MAX {
                    break;
                }
                let (a, b) = inner.sets;
                if a == b {
                    self.conflict(&inner);
                    continue;
                }
                let why = format!("subfields \"{}\" conflict because {}", inner.key, inner.why);
                let sets = (alike[a].0, alike[b].0);
                conflicts.push(Conflict { key: (*key).to_owned(), why, sets, at: alike[b].1.at });
            }
        }
        self.level -= 1;
        conflicts
    }

    fn collect(
        &mut self,
        set: usize,
        selections: &'d [Selection<'q>],
        entered: &mut HashSet<&'q str>,
        numbers: &mut HashMap<&'q str, usize>,
        groups: &mut Vec<(&'q str, Vec<(usize, &'d Field<'q>)>)>,
    ) {
        if !self.descend() {
            return;
        }
        for selection in selections {
            if !self.spend(1) {
                break;
            }
            match selection {
                Selection::Field(field) => {
                    let number = *numbers.entry(field.alias).or_insert_with(|| {
                        groups.push((field.alias, Vec::new()));
                        groups.len() - 1
                    });
                    groups[number].1.push((set, field));
                }
                Selection::Inline { selections, .. } => self.collect(set, selections, entered, numbers, groups),
                Selection::Spread { name, .. } => {
                    if let Some(fragment) = self.fragment_named(name).filter(|_| entered.insert(name)) {
                        self.collect(set, &fragment.selections, entered, numbers, groups);
                    }
                }
            }
        }
        self.level -= 1;
    }
}

fn same_arguments(a: &[Argument<'_>], b: &[Argument<'_>]) -> bool {
    a.len() == b.len() && a.iter().all(|argument| b.contains(argument))
}

/// Whether a variable of a type may stand where another type is wanted.
fn is_compatible(given: &str, wanted: &str) -> bool {
    let list = |ty: &'_ str| ty.starts_with('[');
    match (given.strip_suffix('!'), wanted.strip_suffix('!')) {
        (None, Some(_)) => false,
        (given_some, wanted_some) => {
            let (given, wanted) = (given_some.unwrap_or(given), wanted_some.unwrap_or(wanted));
            match (list(given), list(wanted)) {
                (true, true) => is_compatible(&given[1..given.len() - 1], &wanted[1..wanted.len() - 1]),
                (false, false) => given == wanted,
                _ => false,
            }
        }
    }
}

fn did_you_mean<'n>(typed: &str, names: impl Iterator<Item = &'n str>) -> String {
    suggestion("Did you mean", typed, names)
}

fn did_you_mean_value<'n>(typed: &str, names: impl Iterator<Item = &'n str>) -> String {
    suggestion("Did you mean the enum value", typed, names)
}

/// The names that are spelt nearly like a word, as the end of a message; empty where there are none.
fn suggestion<'n>(prefix: &str, typed: &str, names: impl Iterator<Item = &'n str>) -> String {
    /// The most names that are told.
    const NAMES_MAX: usize = 5;
    // A name that is far longer than all others is like none of them.
    if typed.len() > 100 {
        return String::new();
    }
    let most = typed.len() * 2 / 5 + 1;
    let mut near: Vec<(usize, &str)> = names.map(|name| (distance(typed, name), name)).collect();
    near.retain(|(distance, _)| *distance <= most);
    near.sort_by_key(|(distance, _)| *distance);
    near.truncate(NAMES_MAX);
    let near: Vec<String> = near.iter().map(|(_, name)| format!("\"{name}\"")).collect();
    match near.as_slice() {
        [] => String::new(),
        [only] => format!(" {prefix} {only}?"),
        [one, other] => format!(" {prefix} {one} or {other}?"),
        [rest @ .., last] => format!(" {prefix} {}, or {last}?", rest.join(", ")),
    }
}

/// How many letters make the difference between two words; that of capitals counts once.
fn distance(a: &str, b: &str) -> usize {
    if a == b {
        return 0;
    }
    let (a, b) = (a.to_ascii_lowercase(), b.to_ascii_lowercase());
    if a == b {
        return 1;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
