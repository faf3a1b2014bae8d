//! `stage.structured_metadata`.

use std::collections::BTreeMap;

use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_config::schema::Stability;
use corten_signal::regex::GoRegex;

use super::stage::{Build, Compile, Emit, Next, Shown, Slot, Stage, StageError, Text, Work, check};
use super::work::write_plain;

/// Sets structured metadata from extracted values and labels.
///
/// Labels that become metadata are removed.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct StructuredMetadataStage {
    /// Names of metadata, with the names of the extracted values or labels to set them from. An empty name is that of
    /// the metadata.
    #[arg(optional)]
    values: BTreeMap<String, Option<String>>,
    /// Extracted values and labels whose names this regular expression matches become metadata of the same names.
    #[arg(default = "")]
    regex: String,
}

impl StructuredMetadataStage {
    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        check(self)
    }
}

impl Build for StructuredMetadataStage {
    fn build(&self, cx: &mut Compile<'_>) -> Result<Box<dyn Stage>, StageError> {
        let mut fields = Vec::new();
        for (name, source) in &self.values {
            if name.is_empty() {
                return Err(StageError::at("values", format!("invalid label name: {name}")));
            }
            let source = source.as_deref().filter(|source| !source.is_empty()).unwrap_or(name);
            fields.push(Field {
                name: cx.text(name),
                source: source.to_owned(),
                slot: cx.slot(source),
                label: cx.text(source),
            });
        }
        let regex = if self.regex.is_empty() {
            None
        } else {
            cx.need_all_values();
            Some(GoRegex::new(&self.regex).map_err(|error| StageError::at("regex", error.to_string()))?)
        };
        Ok(Box::new(StructuredMetadata { fields, regex }))
    }
}

struct StructuredMetadata {
    fields: Vec<Field>,
    regex: Option<GoRegex>,
}

struct Field {
    name: Text,
    /// The name of the label.
    source: String,
    slot: Slot,
    label: Text,
}

impl Stage for StructuredMetadata {
    fn run(&self, work: &mut Work, _: &mut Emit) -> Next {
        for field in &self.fields {
            if let Some(value) = work.text_of(work.value(field.slot))
                && work.str(value).is_some()
            {
                set(field.name, value, work);
            }
        }
        if let Some(regex) = &self.regex {
            self.set_matching(regex, work);
        }
        // First all are read: two may come from one label.
        for field in &self.fields {
            if let Some(value) = work.label(&field.source).map(|value| value.as_bytes().to_vec()) {
                let value = work.add(&value);
                set(field.name, value, work);
            }
        }
        for field in &self.fields {
            if work.label(&field.source).is_some() {
                work.remove_label(field.label);
            }
        }
        if let Some(regex) = &self.regex {
            let stream = work.stream();
            for (name, value) in stream.labels().iter().filter(|(name, _)| regex.is_match(name)) {
                let (name, value) = (work.add(name.as_bytes()), work.add(value.as_bytes()));
                set(name, value, work);
                work.remove_label(name);
            }
        }
        Next::Keep
    }
}

impl StructuredMetadata {
    /// Sets those of the extracted values, in the order of their names.
    fn set_matching(&self, regex: &GoRegex, work: &mut Work) {
        let mut found = BTreeMap::new();
        work.for_each_value(|name, value| {
            let mut text = Vec::new();
            match value {
                Shown::Text(value) => text.extend_from_slice(value),
                Shown::Other(value) => write_plain(&mut text, value),
            }
            let has_text = !matches!(value, Shown::Other(_)) || !text.is_empty();
            let is_match = std::str::from_utf8(name).is_ok_and(|name| regex.is_match(name));
            if has_text && is_match && std::str::from_utf8(&text).is_ok() {
                found.insert(name.to_vec(), text);
            }
        });
        for (name, value) in &found {
            let (name, value) = (work.add(name), work.add(value));
            set(name, value, work);
        }
    }
}

/// Sets metadata, in the place of the first that has the name.
fn set(name: Text, value: Text, work: &mut Work) {
    let known = work.metadata().iter().position(|(known, _)| work.bytes(*known) == work.bytes(name));
    match known {
        Some(at) => work.metadata_mut()[at].1 = value,
        None => work.metadata_mut().push((name, value)),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn entries_become_what_the_reference_makes_of_them() {
        assert!(super::super::testing::recorded("structured_metadata") >= 11);
    }
}
