//! `stage.label_keep`.

use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_config::schema::Stability;

use super::stage::{Build, Compile, Emit, Next, Stage, StageError, Work, check};

/// Removes all labels but those that are named.
///
/// That includes internal ones, such as `__tenant_id__` that `stage.tenant` sets.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct LabelKeepStage {
    /// Names of the labels to keep.
    values: Vec<String>,
}

impl LabelKeepStage {
    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        check(self)
    }
}

impl Build for LabelKeepStage {
    fn build(&self, _: &mut Compile<'_>) -> Result<Box<dyn Stage>, StageError> {
        if self.values.is_empty() {
            return Err(StageError::at("values", "labelallow stage config cannot be empty"));
        }
        Ok(Box::new(LabelKeep { names: self.values.clone() }))
    }
}

struct LabelKeep {
    names: Vec<String>,
}

impl Stage for LabelKeep {
    fn run(&self, work: &mut Work, _: &mut Emit) -> Next {
        work.retain_labels(|name| self.names.iter().any(|kept| kept == name));
        Next::Keep
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn entries_become_what_the_reference_makes_of_them() {
        assert!(super::super::testing::recorded("label_keep") >= 4);
    }
}
