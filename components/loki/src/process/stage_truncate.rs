//! `stage.truncate`.

use std::collections::BTreeSet;

use corten_component::metrics::{Counter, Vector};
use corten_config::arguments::CheckErrors;
use corten_config::decode::TextType;
use corten_config::{Arguments, decode_text};

use super::stage::{Build, Compile, Emit, Next, Shown, Slot, Stage, StageError, Text, Value, Work};
use super::stage_drop::Base2Bytes;

/// Cuts what is too long.
///
/// The extracted value `truncated` says which kinds were cut: `extracted`, `label`, `line` and `structured_metadata`,
/// with commas between them.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct TruncateStage {
    /// What to cut, in order.
    #[block(name = "rule", required)]
    rules: Vec<TruncateRule>,
}

/// What to cut.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(super) struct TruncateRule {
    /// The most bytes that are left, such as `8KB`. The suffix is a part of them.
    limit: Base2Bytes,
    /// Names of what to cut; all, if there are none.
    sources: Option<Vec<String>>,
    /// The kind of what to cut: `line`, `label`, `structured_metadata` or `extracted`.
    #[arg(default = "line")]
    source_type: SourceType,
    /// What to put behind what was cut.
    #[arg(optional)]
    suffix: String,
}

impl TruncateRule {
    fn sources(&self) -> &[String] {
        self.sources.as_deref().unwrap_or_default()
    }

    fn check(&self) -> Result<(), CheckErrors> {
        if self.limit.0 <= 0 {
            return Err(CheckErrors::of(&["limit"], "limit must be greater than zero"));
        }
        if self.source_type == SourceType::Line && !self.sources().is_empty() {
            let text = "sources cannot be set when source_type is 'line'";
            return Err(CheckErrors::of(&["sources", "source_type"], text));
        }
        if !self.suffix.is_empty() && self.limit.0 <= self.suffix.len() as i64 {
            let text = "suffix length cannot be greater than or equal to limit";
            return Err(CheckErrors::of(&["suffix", "limit"], text));
        }
        Ok(())
    }
}

/// A kind of what entries have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SourceType {
    /// The extracted values.
    Extracted,
    /// The labels.
    Label,
    /// The log line.
    Line,
    /// The structured metadata.
    StructuredMetadata,
}

impl SourceType {
    fn name(self) -> &'static str {
        match self {
            SourceType::Extracted => "extracted",
            SourceType::Label => "label",
            SourceType::Line => "line",
            SourceType::StructuredMetadata => "structured_metadata",
        }
    }
}

impl TextType for SourceType {
    fn parse(text: &str) -> Result<Self, String> {
        use SourceType::{Extracted, Label, Line, StructuredMetadata};
        let found = [Extracted, Label, Line, StructuredMetadata].into_iter().find(|known| known.name() == text);
        found.ok_or_else(|| format!("unknown source_type: {text}"))
    }

    fn text(&self) -> String {
        self.name().to_owned()
    }

    fn null() -> Option<Self> {
        None
    }
}

decode_text!(SourceType);

impl Build for TruncateStage {
    fn build(&self, cx: &mut Compile<'_>) -> Result<Box<dyn Stage>, StageError> {
        let counts = cx.registry().counters(
            "loki_process_truncated_fields_total",
            "A count of all log lines, labels, extracted values, or structured_metadata truncated as a result of a pipeline stage",
            &["field"],
        );
        let all_extracted =
            |rule: &TruncateRule| rule.source_type == SourceType::Extracted && rule.sources().is_empty();
        if self.rules.iter().any(all_extracted) {
            cx.need_all_values();
        }
        let rules = self
            .rules
            .iter()
            .map(|rule| CompiledRule {
                kept: usize::try_from(rule.limit.0).unwrap_or(usize::MAX).saturating_sub(rule.suffix.len()),
                suffix: rule.suffix.clone().into_bytes(),
                kind: rule.source_type,
                sources: rule.sources().iter().map(|name| (name.clone(), cx.text(name), cx.slot(name))).collect(),
            })
            .collect();
        Ok(Box::new(Truncate { rules, truncated: cx.slot("truncated"), counts }))
    }
}

struct Truncate {
    rules: Vec<CompiledRule>,
    truncated: Slot,
    counts: Vector<Counter>,
}

struct CompiledRule {
    /// How much is left, without the suffix. What is not longer is left alone.
    kept: usize,
    suffix: Vec<u8>,
    kind: SourceType,
    sources: Vec<(String, Text, Slot)>,
}

impl CompiledRule {
    /// The text without what is too much; nothing if it is not too long.
    fn cut(&self, text: Text, work: &mut Work) -> Option<Text> {
        if text.len() <= self.kept {
            return None;
        }
        let kept = text.slice(0..self.kept);
        if self.suffix.is_empty() {
            return Some(kept);
        }
        Some(work.read(kept, |kept, tools| {
            tools.write(|out| {
                out.extend_from_slice(kept);
                out.extend_from_slice(&self.suffix);
            })
        }))
    }

    /// As [`cut`](Self::cut), for what must be UTF-8: the cut lies in front of the character that it would split.
    fn cut_str(&self, text: &str) -> Option<Vec<u8>> {
        if text.len() <= self.kept {
            return None;
        }
        Some([&text.as_bytes()[..text.floor_char_boundary(self.kept)], &self.suffix].concat())
    }

    fn names(&self, name: &[u8]) -> bool {
        self.sources.is_empty() || self.sources.iter().any(|(known, ..)| known.as_bytes() == name)
    }

    /// How many of an entry's were cut.
    fn apply(&self, work: &mut Work) -> u64 {
        match self.kind {
            SourceType::Line => {
                let cut = self.cut(work.line(), work);
                cut.inspect(|line| work.set_line(*line)).is_some().into()
            }
            SourceType::Label => self.apply_to_labels(work),
            SourceType::StructuredMetadata => {
                let mut count = 0;
                for at in 0..work.metadata().len() {
                    let (name, value) = work.metadata()[at];
                    if self.names(work.bytes(name))
                        && let Some(value) = self.cut(value, work)
                    {
                        work.metadata_mut()[at].1 = value;
                        count += 1;
                    }
                }
                count
            }
            SourceType::Extracted if self.sources.is_empty() => {
                let mut long = Vec::new();
                work.for_each_value(|name, value| {
                    if let Shown::Text(text) = value
                        && text.len() > self.kept
                    {
                        long.push((name.to_vec(), [&text[..self.kept], &self.suffix].concat()));
                    }
                });
                for (name, value) in &long {
                    let (name, value) = (work.add(name), work.add(value));
                    work.set_value_named(name, Value::Text(value));
                }
                long.len() as u64
            }
            SourceType::Extracted => {
                let mut count = 0;
                for (_, _, slot) in &self.sources {
                    if let Value::Text(text) = work.value(*slot)
                        && let Some(text) = self.cut(text, work)
                    {
                        work.set_value(*slot, Value::Text(text));
                        count += 1;
                    }
                }
                count
            }
        }
    }

    fn apply_to_labels(&self, work: &mut Work) -> u64 {
        let mut count = 0;
        if self.sources.is_empty() {
            let stream = work.stream();
            for (name, value) in stream.labels().iter() {
                if let Some(value) = self.cut_str(value) {
                    let (name, value) = (work.add(name.as_bytes()), work.add(&value));
                    work.set_label(name, value);
                    count += 1;
                }
            }
            return count;
        }
        for (name, text, _) in &self.sources {
            if let Some(value) = work.label(name).and_then(|value| self.cut_str(value)) {
                let value = work.add(&value);
                work.set_label(*text, value);
                count += 1;
            }
        }
        count
    }
}

impl Stage for Truncate {
    fn run(&self, work: &mut Work, _: &mut Emit) -> Next {
        let mut kinds: BTreeSet<Vec<u8>> = BTreeSet::new();
        for rule in &self.rules {
            let count = rule.apply(work);
            if count > 0 {
                self.counts.with(&[rule.kind.name()]).add(count);
                kinds.insert(rule.kind.name().into());
            }
            // A rule for extracted values may have cut the value itself.
            if !kinds.is_empty() {
                if let Value::Text(known) = work.value(self.truncated) {
                    kinds.extend(work.bytes(known).split(|byte| *byte == b',').map(<[u8]>::to_vec));
                }
                let names: Vec<&[u8]> = kinds.iter().map(Vec::as_slice).collect();
                let text = work.add(&names.join(&b','));
                work.set_value(self.truncated, Value::Text(text));
            }
        }
        Next::Keep
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn entries_become_what_the_reference_makes_of_them() {
        assert!(super::super::testing::recorded("truncate") >= 19);
    }
}
