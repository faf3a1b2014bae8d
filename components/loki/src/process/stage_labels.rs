//! `stage.labels`.

use std::collections::BTreeMap;

use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_config::decode::TextType as _;
use corten_config::schema::Stability;

use super::stage::{Build, Compile, Emit, Next, Slot, Stage, StageError, Text, Work, check};
use super::stage_truncate::SourceType;

/// Makes labels of extracted values.
///
/// A label whose value was not extracted stays as it is; an empty value counts.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct LabelsStage {
    /// Names of extracted values by the names of labels. Null or an empty name stands for that of the label.
    values: BTreeMap<String, Option<String>>,
    /// Where the values come from: `extracted` or `structured_metadata`, where they stay.
    #[arg(default = "extracted")]
    source_type: SourceType,
}

impl LabelsStage {
    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        check(self)
    }
}

impl Build for LabelsStage {
    fn build(&self, cx: &mut Compile<'_>) -> Result<Box<dyn Stage>, StageError> {
        let from_metadata = match self.source_type {
            SourceType::Extracted => false,
            SourceType::StructuredMetadata => true,
            other @ (SourceType::Line | SourceType::Label) => {
                let text = format!(
                    "invalid labels source_type: {}. Can only be 'extracted' or 'structured_metadata'",
                    other.text()
                );
                return Err(StageError::at("source_type", text));
            }
        };
        let mut labels = Vec::new();
        for (name, source) in &self.values {
            let source = source.as_deref().filter(|source| !source.is_empty()).unwrap_or(name);
            // The slot is only taken where it is read.
            let from = if from_metadata { From::Metadata(cx.text(source)) } else { From::Extracted(cx.slot(source)) };
            labels.push((cx.text(name), from));
        }
        Ok(Box::new(Labels { labels }))
    }
}

enum From {
    Extracted(Slot),
    Metadata(Text),
}

struct Labels {
    labels: Vec<(Text, From)>,
}

impl Stage for Labels {
    fn run(&self, work: &mut Work, _: &mut Emit) -> Next {
        for (name, from) in &self.labels {
            let value = match from {
                From::Extracted(slot) => work.text_of(work.value(*slot)),
                From::Metadata(source) => {
                    let pairs = work.metadata().iter();
                    pairs.filter(|(n, _)| work.bytes(*n) == work.bytes(*source)).map(|(_, value)| *value).next()
                }
            };
            if let Some(value) = value {
                work.set_label(*name, value);
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
        assert!(recorded("labels") >= 15);
    }
}
