//! `stage.replace`.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use corten_component::Logger;
use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_config::schema::Stability;
use corten_golang::template::Template;
use corten_signal::regex::{GoRegex, Groups, Lossy};

use super::stage::{Build, Compile, Emit, Next, Slot, Stage, StageError, Text, Value, Work, check};
use super::stage_template::{Seen, TEMPLATE_NAME, need_values, shown_of, tell_failure, with_buffer};

/// The largest result, in bytes. Beyond it nothing is replaced.
const RESULT_BYTES_MAX: usize = 64 << 20;

/// Replaces what the groups of a regular expression capture, in every match, with what a template makes of it.
///
/// The template is one in the language of Go's `text/template`, with the functions of `stage.template`. It sees the captured
/// text as `.Value`, and extracted values by their names, all as texts. Named groups are extracted as well: with what the
/// text that they captured in the first match was replaced with. An expression without groups changes nothing, and neither
/// does a template that fails.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct ReplaceStage {
    /// Regular expression, in the syntax of RE2, with groups.
    expression: String,
    /// Name of the extracted value to read and to write instead of the line.
    source: Option<String>,
    /// The template, or the text to put in place.
    replace: Option<String>,
}

impl ReplaceStage {
    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        check(self)
    }
}

impl Build for ReplaceStage {
    fn build(&self, cx: &mut Compile<'_>) -> Result<Box<dyn Stage>, StageError> {
        if self.expression.is_empty() {
            return Err(StageError::at("expression", "expression is required"));
        }
        let regex = GoRegex::new(&self.expression)
            .map_err(|error| StageError::at("expression", format!("could not compile regular expression: {error}")))?;
        let template = Template::parse(TEMPLATE_NAME, self.replace.as_deref().unwrap_or_default())
            .map_err(|error| StageError::at("replace", format!("failed to compile template: {error}")))?;
        need_values(&template, cx);
        let mut named = Vec::new();
        for (at, name) in regex.group_names().enumerate() {
            if let Some(name) = name.filter(|name| !name.is_empty()) {
                named.push((at + 1, cx.slot(name)));
            }
        }
        Ok(Box::new(Replace {
            source: self.source.as_deref().filter(|source| !source.is_empty()).map(|source| cx.slot(source)),
            regex,
            template: Arc::new(template),
            named,
            logger: cx.logger(),
        }))
    }
}

struct Replace {
    source: Option<Slot>,
    regex: GoRegex,
    template: Arc<Template>,
    /// The groups with names.
    named: Vec<(usize, Slot)>,
    logger: Option<Logger>,
}

/// What a named group captured in the first match, and what that text was replaced with last.
struct Named {
    slot: Slot,
    captured: Range<usize>,
    /// Where in the buffer of replacements.
    replaced: Option<Range<usize>>,
}

impl Replace {
    /// Appends the input with its groups replaced to `out`. Says whether there was a match, and where `replacements` has
    /// what the named groups became.
    fn replace(
        &self,
        work: &Work,
        input: &[u8],
        out: &mut Vec<u8>,
        replacements: &mut Vec<u8>,
    ) -> Result<Option<Vec<Named>>, String> {
        let (mut lossy, mut groups) = (Lossy::new(), Groups::new());
        let (text, offsets) = lossy.text(input);
        let mut named: Vec<Named> = Vec::new();
        let mut matched = false;
        // Up to where the input is in the output.
        let mut copied = 0;
        let (mut at, mut match_end) = (0, None);
        while at <= text.len() && self.regex.captures_at(text, at, &mut groups) {
            let Some(found) = groups.get(0) else { break };
            let step = text[at..].chars().next().map_or(1, char::len_utf8);
            at = if found.end > at { found.end } else { at + step };
            let previous = match_end.replace(found.end);
            if found.is_empty() && previous == Some(found.start) {
                // An empty match right behind another one is none.
                continue;
            }
            let capture = |index: usize| groups.get(index).map(|range| offsets.range(range));
            if !matched {
                matched = true;
                named.extend(self.named.iter().map(|(index, slot)| Named {
                    slot: *slot,
                    captured: capture(*index).unwrap_or(0..0),
                    replaced: None,
                }));
            }
            for range in (1..=self.regex.group_count()).filter_map(capture) {
                let captured = input.get(range.clone()).unwrap_or_default();
                let start = replacements.len();
                let seen = Seen { work, line: None, value: Some(Cow::Borrowed(captured)), is_texts: true };
                self.template.execute(&seen, replacements).map_err(|error| error.to_string())?;
                let made = start..replacements.len();
                // A group within one that was replaced is not replaced itself.
                if copied == 0 || copied <= range.start {
                    out.extend_from_slice(input.get(copied..range.start).unwrap_or_default());
                    out.extend_from_slice(&replacements[made.clone()]);
                    copied = range.end;
                }
                let mut wanted = false;
                for group in &mut named {
                    if input.get(group.captured.clone()) == Some(captured) {
                        group.replaced = Some(made.clone());
                        wanted = true;
                    }
                }
                if !wanted {
                    replacements.truncate(start);
                }
                if out.len().max(replacements.len()) > RESULT_BYTES_MAX {
                    return Err(format!("result is larger than {RESULT_BYTES_MAX} bytes"));
                }
            }
        }
        out.extend_from_slice(&input[copied..]);
        Ok(matched.then_some(named))
    }
}

impl Stage for Replace {
    fn run(&self, work: &mut Work, _: &mut Emit) -> Next {
        with_buffer(|out| {
            let mut replacements = Vec::new();
            let replaced = {
                let input = match self.source {
                    None => Cow::Borrowed(work.bytes(work.line())),
                    Some(source) => match shown_of(work, work.value(source)) {
                        Some(text) => text,
                        None => return,
                    },
                };
                self.replace(work, &input, out, &mut replacements)
            };
            let named = match replaced {
                Err(error) => return tell_failure(self.logger.as_ref(), &error),
                Ok(None) => return,
                Ok(Some(named)) => named,
            };
            let result = work.add(out);
            match self.source {
                Some(source) => work.set_value(source, Value::Text(result)),
                None => work.set_line(result),
            }
            for Named { slot, replaced, .. } in named {
                if let Some(range) = replaced {
                    let text: Text = work.add(&replacements[range]);
                    work.set_value(slot, Value::Text(text));
                }
            }
        });
        Next::Keep
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use crate::process::testing::{recorded, run};

    #[test]
    fn it_does_what_the_reference_does() {
        assert!(recorded("replace") >= 40);
        assert!(recorded("replace_random") >= 100);
    }

    #[test]
    fn bytes_that_are_no_text_stay() {
        let ran = run(
            "stage.replace {\n expression = \"a(.)b\"\n replace = \"<{{ .Value }}>\"\n}",
            &[json!({ "line": { "b64": "/2H/Yv8=" } })],
        );
        assert_eq!(ran.unwrap().entries[0]["line"], json!({ "bytes": b"\xffa<\xff>b\xff" }));
    }

    proptest! {
        #[test]
        fn groups_that_are_replaced_with_themselves_change_nothing(
            line in "[a-c =]{0,20}",
            expression in prop::sample::select(vec!["(a)", "(a*)", "(a|(b))c?", "((a)b)", "(?P<x>.)=(?P<y>.?)", "()", "^(.*)$"]),
        ) {
            let stages = format!("stage.replace {{\n expression = `{expression}`\n replace = \"{{{{ .Value }}}}\"\n}}");
            let ran = run(&stages, &[json!({ "line": line })]).unwrap();
            prop_assert_eq!(ran.lines(), [line]);
        }
    }
}
