//! Operators that change entries.

use corten_signal::regex::{GoRegex, Groups, Template};

use super::Transform;
use crate::build::{Built, Fields};
use crate::entry::Entry;
use crate::expr::Program;
use crate::field::{Field, Root};
use crate::value::{Map, Text, Value};

fn required(fields: &Fields<'_>, name: &'static str) -> Built<Field> {
    fields.field(name)?.ok_or_else(|| format!("missing required field '{name}'"))
}

/// Puts a value somewhere.
pub(super) struct Add {
    field: Field,
    value: Addend,
}

enum Addend {
    Value(Value),
    Program(Program),
}

impl Add {
    pub(super) fn new(fields: &Fields<'_>) -> Built<Self> {
        let field = required(fields, "field")?;
        let value = match fields.get("value") {
            None => return Err("missing required field 'value'".to_owned()),
            Some(Value::Str(text)) => {
                let lossy = text.lossy();
                match lossy.strip_prefix("EXPR(").and_then(|text| text.strip_suffix(')')) {
                    Some(program) => {
                        let compiled = Program::new(program);
                        Addend::Program(
                            compiled.map_err(|error| format!("failed to compile expression '{program}': {error}"))?,
                        )
                    }
                    None => Addend::Value(Value::Str(text.clone())),
                }
            }
            Some(other) => Addend::Value(other.clone()),
        };
        Ok(Add { field, value })
    }
}

impl Transform for Add {
    fn transform(&mut self, entry: &mut Entry) -> Result<(), String> {
        let value = match &self.value {
            Addend::Value(value) => value.clone(),
            Addend::Program(program) => program.run(entry).map_err(|error| format!("evaluate value_expr: {error}"))?,
        };
        Ok(self.field.set(entry, value)?)
    }
}

/// Makes a map of a list.
pub(super) struct AssignKeys {
    field: Field,
    keys: Vec<Text>,
}

impl AssignKeys {
    pub(super) fn new(fields: &Fields<'_>) -> Built<Self> {
        let keys: Vec<Text> = fields.texts("keys")?.into_iter().map(Text::from).collect();
        if keys.is_empty() {
            return Err("assign_keys missing required field keys".to_owned());
        }
        Ok(AssignKeys { field: required(fields, "field")?, keys })
    }
}

impl Transform for AssignKeys {
    fn transform(&mut self, entry: &mut Entry) -> Result<(), String> {
        let field = &self.field;
        let list = match field.get(entry) {
            None => return Err(format!("apply assign_keys: field {field} does not exist on entry")),
            Some(Value::List(list)) => list,
            Some(_) => return Err(format!("apply assign_keys: couldn't convert field {field} to []any")),
        };
        if list.len() != self.keys.len() {
            let keys: Vec<_> = self.keys.iter().map(|key| key.lossy()).collect();
            return Err(format!(
                "apply assign_keys: field {field} contains {} values while expected keys are [{}] contain {} keys",
                list.len(),
                keys.join(" "),
                keys.len()
            ));
        }
        let map: Map = self.keys.iter().cloned().zip(list.iter().cloned()).collect();
        Ok(field.set(entry, Value::Map(map))?)
    }
}

fn both(fields: &Fields<'_>) -> Built<(Field, Field)> {
    match (fields.field("from")?, fields.field("to")?) {
        (Some(from), Some(to)) => Ok((from, to)),
        (None, Some(_)) => Err("copy: missing from field".to_owned()),
        (Some(_), None) => Err("copy: missing to field".to_owned()),
        (None, None) => Err("copy: missing from field\ncopy: missing to field".to_owned()),
    }
}

/// Copies a value.
pub(super) struct Copy {
    from: Field,
    to: Field,
}

impl Copy {
    pub(super) fn new(fields: &Fields<'_>) -> Built<Self> {
        both(fields).map(|(from, to)| Copy { from, to })
    }
}

impl Transform for Copy {
    fn transform(&mut self, entry: &mut Entry) -> Result<(), String> {
        let Some(value) = self.from.get(entry).cloned() else {
            return Err(format!("copy: from field does not exist in this entry: {}", self.from));
        };
        Ok(self.to.set(entry, value)?)
    }
}

/// Moves a value.
pub(super) struct Move {
    from: Field,
    to: Field,
}

impl Move {
    pub(super) fn new(fields: &Fields<'_>) -> Built<Self> {
        both(fields).map(|(from, to)| Move { from, to })
    }
}

impl Transform for Move {
    fn transform(&mut self, entry: &mut Entry) -> Result<(), String> {
        let Some(value) = self.from.delete(entry) else {
            return Err(format!("move: field does not exist: {}", self.from));
        };
        Ok(self.to.set(entry, value)?)
    }
}

/// Moves what is in a map to where the map is.
pub(super) struct Flatten {
    field: Field,
    parent: Field,
}

impl Flatten {
    pub(super) fn new(fields: &Fields<'_>) -> Built<Self> {
        let field = required(fields, "field")?;
        Ok(Flatten { parent: field.parent(), field })
    }
}

impl Transform for Flatten {
    fn transform(&mut self, entry: &mut Entry) -> Result<(), String> {
        let field = &self.field;
        match field.delete(entry) {
            None => Err(format!("apply flatten: field {field} does not exist on entry")),
            Some(Value::Map(map)) => {
                for (key, value) in map {
                    self.parent.child(key).set(entry, value)?;
                }
                Ok(())
            }
            Some(other) => {
                field.set(entry, other).map_err(|error| format!("reset non-map field: {error}"))?;
                Err(format!("apply flatten: field {field} is not a map"))
            }
        }
    }
}

/// Replaces what a pattern matches.
pub(super) struct RegexReplace {
    field: Field,
    regex: GoRegex,
    template: Template,
    groups: Groups,
}

/// What terminals are told by control sequences.
const ANSI: &str = r"\x1B\[[\x30-\x3F]*[\x20-\x2F]*[\x40-\x7E]";

impl RegexReplace {
    pub(super) fn new(fields: &Fields<'_>) -> Built<Self> {
        let field = required(fields, "field")?;
        let (name, pattern) = (fields.text_or("regex_name", "")?, fields.text_or("regex", "")?);
        if name.is_empty() == pattern.is_empty() {
            return Err("either regex or regex_name must be set".to_owned());
        }
        let pattern = match &*name {
            "" => &*pattern,
            "ansi_control_sequences" => ANSI,
            other => return Err(format!("regex_name {other} is unknown")),
        };
        let regex = GoRegex::new(pattern).map_err(|error| error.to_string())?;
        let template = Template::new(&fields.text_or("replace_with", "")?, &regex);
        Ok(RegexReplace { field, regex, template, groups: Groups::new() })
    }
}

impl Transform for RegexReplace {
    fn transform(&mut self, entry: &mut Entry) -> Result<(), String> {
        let text = match self.field.get(entry) {
            None => return Ok(()),
            Some(Value::Str(text)) => text.lossy(),
            Some(other) => return Err(format!("type {} cannot be handled", other.go_type())),
        };
        if self.regex.find(&text).is_none() {
            return Ok(());
        }
        let mut out = String::with_capacity(text.len());
        self.regex.replace_all(&text, &self.template, &mut self.groups, &mut out);
        Ok(self.field.set(entry, Value::str(out))?)
    }
}

/// Removes a value.
pub(super) struct Remove {
    field: Field,
}

impl Remove {
    pub(super) fn new(fields: &Fields<'_>) -> Built<Self> {
        let field = fields.field_or_whole("field")?;
        Ok(Remove { field: field.ok_or_else(|| "remove: field is empty".to_owned())? })
    }
}

impl Transform for Remove {
    fn transform(&mut self, entry: &mut Entry) -> Result<(), String> {
        match self.field.delete(entry) {
            Some(_) => Ok(()),
            None => Err(format!("remove: field does not exist: {}", self.field)),
        }
    }
}

/// Removes everything else.
pub(super) struct Retain {
    fields: Vec<Field>,
}

impl Retain {
    pub(super) fn new(fields: &Fields<'_>) -> Built<Self> {
        let fields = fields.fields("fields")?;
        if fields.is_empty() {
            return Err("retain: 'fields' is empty".to_owned());
        }
        Ok(Retain { fields })
    }
}

impl Transform for Retain {
    fn transform(&mut self, entry: &mut Entry) -> Result<(), String> {
        let kept: Vec<Option<Value>> = self.fields.iter().map(|field| field.get(entry).cloned()).collect();
        // Only what a field begins with is touched.
        for field in &self.fields {
            match field.root() {
                Root::Body => entry.body = Value::Null,
                Root::Attributes => entry.attributes = Value::Map(Map::default()),
                Root::Resource => entry.resource = Value::Map(Map::default()),
            }
        }
        for (field, value) in self.fields.iter().zip(kept) {
            if let Some(value) = value {
                field.set(entry, value)?;
            }
        }
        Ok(())
    }
}

/// Replaces what is not UTF-8.
pub(super) struct SanitizeUtf8 {
    field: Field,
}

impl SanitizeUtf8 {
    pub(super) fn new(fields: &Fields<'_>) -> Built<Self> {
        Ok(SanitizeUtf8 { field: fields.field("field")?.unwrap_or_else(Field::body) })
    }
}

impl Transform for SanitizeUtf8 {
    fn transform(&mut self, entry: &mut Entry) -> Result<(), String> {
        let text = match self.field.get(entry) {
            None => return Ok(()),
            Some(Value::Str(text)) => text,
            Some(other) => return Err(format!("field '{}' is not a string, got {}", self.field, other.go_type())),
        };
        if std::str::from_utf8(text).is_ok() {
            return Ok(());
        }
        // One sign for all the bytes that stand together.
        let mut out = String::with_capacity(text.len() + 8);
        let mut was_bad = false;
        for chunk in text.utf8_chunks() {
            was_bad &= chunk.valid().is_empty();
            out.push_str(chunk.valid());
            if !chunk.invalid().is_empty() && !std::mem::replace(&mut was_bad, true) {
                out.push(char::REPLACEMENT_CHARACTER);
            }
        }
        Ok(self.field.set(entry, Value::str(out))?)
    }
}

/// Takes off the quotes of a literal of Go's.
pub(super) struct Unquote {
    field: Field,
}

impl Unquote {
    pub(super) fn new(fields: &Fields<'_>) -> Built<Self> {
        Ok(Unquote { field: required(fields, "field")? })
    }
}

impl Transform for Unquote {
    fn transform(&mut self, entry: &mut Entry) -> Result<(), String> {
        let text = match self.field.get(entry) {
            None => return Ok(()),
            Some(Value::Str(text)) => text,
            Some(other) => return Err(format!("type {} cannot be unquoted", other.go_type())),
        };
        let plain = std::str::from_utf8(text).ok().and_then(corten_golang::unquote);
        let plain = plain.ok_or_else(|| "invalid syntax".to_owned())?;
        Ok(self.field.set(entry, Value::str(plain))?)
    }
}
