//! `stage.label_drop`.

use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_config::schema::Stability;

use super::stage::{Build, Compile, Emit, Next, Stage, StageError, Text, Work, check};

/// Removes labels.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct LabelDropStage {
    /// Names of the labels to remove.
    values: Vec<String>,
}

impl LabelDropStage {
    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        check(self)
    }
}

impl Build for LabelDropStage {
    fn build(&self, cx: &mut Compile<'_>) -> Result<Box<dyn Stage>, StageError> {
        if self.values.is_empty() {
            return Err(StageError::at("values", "labeldrop stage config cannot be empty"));
        }
        let names = self.values.iter().map(|name| (name.clone(), cx.text(name))).collect();
        Ok(Box::new(LabelDrop { names }))
    }
}

struct LabelDrop {
    names: Vec<(String, Text)>,
}

impl Stage for LabelDrop {
    fn run(&self, work: &mut Work, _: &mut Emit) -> Next {
        for (name, text) in &self.names {
            if work.label(name).is_some() {
                work.remove_label(*text);
            }
        }
        Next::Keep
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn entries_become_what_the_reference_makes_of_them() {
        assert!(super::super::testing::recorded("label_drop") >= 4);
    }
}
