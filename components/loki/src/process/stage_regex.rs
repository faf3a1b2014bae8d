//! `stage.regex`.

use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_config::schema::Stability;
use corten_signal::regex::GoRegex;

use super::stage::{Build, Compile, Emit, Input, Next, Slot, Stage, StageError, Text, Value, Work, check};

/// Extracts the named groups of the first match of a regular expression.
///
/// A group that took no part in the match is extracted as an empty text. Without a match nothing changes.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct RegexStage {
    /// Regular expression, in the syntax of RE2, with named groups.
    expression: String,
    /// Name of the extracted value to read instead of the line.
    source: Option<String>,
    /// Sets labels of the same names as well.
    #[arg(default = false)]
    labels_from_groups: bool,
}

impl RegexStage {
    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        check(self)
    }
}

impl Build for RegexStage {
    fn build(&self, cx: &mut Compile<'_>) -> Result<Box<dyn Stage>, StageError> {
        if self.expression.is_empty() {
            return Err(StageError::at("expression", "expression is required"));
        }
        if self.source.as_deref() == Some("") {
            return Err(StageError::at("source", "empty source"));
        }
        let regex = GoRegex::new(&self.expression)
            .map_err(|error| StageError::at("expression", format!("could not compile regular expression: {error}")))?;
        let mut groups = Vec::new();
        for (at, name) in regex.group_names().enumerate() {
            if let Some(name) = name.filter(|name| !name.is_empty()) {
                groups.push(Group { index: at + 1, slot: cx.slot(name), name: cx.text(name) });
            }
        }
        Ok(Box::new(Regex {
            input: cx.input(self.source.as_deref()),
            regex,
            groups,
            sets_labels: self.labels_from_groups,
        }))
    }
}

struct Group {
    index: usize,
    slot: Slot,
    name: Text,
}

struct Regex {
    input: Input,
    regex: GoRegex,
    groups: Vec<Group>,
    sets_labels: bool,
}

impl Stage for Regex {
    fn run(&self, work: &mut Work, _: &mut Emit) -> Next {
        let Some(text) = self.input.read(work) else { return Next::Keep };
        let found = work.read(text, |bytes, tools| {
            let found = self.regex.captures_bytes(bytes, tools.lossy, tools.groups);
            if found {
                for group in &self.groups {
                    let part = tools.groups.get(group.index).map_or(Text::EMPTY, |range| text.slice(range));
                    tools.find(group.slot, Value::Text(part));
                }
            }
            found
        });
        if !found {
            return Next::Keep;
        }
        work.keep_found();
        if self.sets_labels {
            for group in &self.groups {
                if let Value::Text(part) = work.value(group.slot) {
                    work.set_label(group.name, part);
                }
            }
        }
        Next::Keep
    }
}

#[cfg(test)]
mod tests {
    use crate::process::testing::recorded;

    #[test]
    fn it_does_what_the_reference_does() {
        assert!(recorded("regex") >= 20);
    }
}
