//! `stage.static_labels`.

use std::collections::BTreeMap;

use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_config::schema::Stability;

use super::stage::{Build, Compile, Emit, Next, Stage, StageError, Text, Work, check};

/// Sets labels to values that are written in the configuration.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct StaticLabelsStage {
    /// Values by the names of labels. Null and empty values set nothing.
    values: BTreeMap<String, Option<String>>,
}

impl StaticLabelsStage {
    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        check(self)
    }
}

impl Build for StaticLabelsStage {
    fn build(&self, cx: &mut Compile<'_>) -> Result<Box<dyn Stage>, StageError> {
        let values = self.values.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        let labels = values.filter(|(_, value)| !value.is_empty()).map(|(name, value)| (cx.text(name), cx.text(value)));
        Ok(Box::new(StaticLabels { labels: labels.collect() }))
    }
}

struct StaticLabels {
    labels: Vec<(Text, Text)>,
}

impl Stage for StaticLabels {
    fn run(&self, work: &mut Work, _: &mut Emit) -> Next {
        for (name, value) in &self.labels {
            work.set_label(*name, *value);
        }
        Next::Keep
    }
}

#[cfg(test)]
mod tests {
    use crate::process::testing::recorded;

    #[test]
    fn it_does_what_the_reference_does() {
        assert!(recorded("static_labels") >= 5);
    }
}
