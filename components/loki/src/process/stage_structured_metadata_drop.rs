//! `stage.structured_metadata_drop`.

use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_config::schema::Stability;

use super::stage::{Build, Compile, Emit, Next, Stage, StageError, Work, check};

/// Removes structured metadata.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct StructuredMetadataDropStage {
    /// Names of the metadata to remove.
    values: Vec<String>,
}

impl StructuredMetadataDropStage {
    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        check(self)
    }
}

impl Build for StructuredMetadataDropStage {
    fn build(&self, _: &mut Compile<'_>) -> Result<Box<dyn Stage>, StageError> {
        if self.values.is_empty() {
            return Err(StageError::at("values", "structured_metadata_drop stage config cannot be empty"));
        }
        Ok(Box::new(StructuredMetadataDrop { names: self.values.clone() }))
    }
}

struct StructuredMetadataDrop {
    names: Vec<String>,
}

impl Stage for StructuredMetadataDrop {
    fn run(&self, work: &mut Work, _: &mut Emit) -> Next {
        let is_named = |work: &Work, at: usize| {
            let (name, _) = work.metadata()[at];
            self.names.iter().any(|dropped| dropped.as_bytes() == work.bytes(name))
        };
        let mut at = 0;
        while at < work.metadata().len() {
            if is_named(work, at) {
                work.metadata_mut().remove(at);
            } else {
                at += 1;
            }
        }
        Next::Keep
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn entries_become_what_the_reference_makes_of_them() {
        assert!(super::super::testing::recorded("structured_metadata_drop") >= 5);
    }
}
