//! `stage.output`.

use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_config::schema::Stability;

use super::stage::{Build, Compile, Emit, Next, Slot, Stage, StageError, Work, check};

/// Makes an extracted value the log line.
///
/// An entry without the value keeps its line.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct OutputStage {
    /// Name of the extracted value.
    source: String,
}

impl OutputStage {
    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        check(self)
    }
}

impl Build for OutputStage {
    fn build(&self, cx: &mut Compile<'_>) -> Result<Box<dyn Stage>, StageError> {
        if self.source.is_empty() {
            return Err(StageError::at("source", "output source value is required if output is specified"));
        }
        Ok(Box::new(Output { source: cx.slot(&self.source) }))
    }
}

struct Output {
    source: Slot,
}

impl Stage for Output {
    fn run(&self, work: &mut Work, _: &mut Emit) -> Next {
        if let Some(text) = work.text_of(work.value(self.source)) {
            work.set_line(text);
        }
        Next::Keep
    }
}

#[cfg(test)]
mod tests {
    use crate::process::testing::recorded;

    #[test]
    fn it_does_what_the_reference_does() {
        assert!(recorded("output") >= 5);
    }
}
