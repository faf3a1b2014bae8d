//! `otelcol.processor.span`.

use std::sync::Arc;

use corten_component::{Context, Error};
use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_config::schema::Stability;
use corten_otlp::{Arena, Span, Text, Traces, Value};
use corten_signal::ConsumeError;
use corten_signal::ledger::Pass;
use corten_signal::regex::GoRegex;

use crate::filtering::{Filter, Scratch, Selection, write_plain};
use crate::flow::{DebugMetrics, Output};
use crate::process::{Kind, Process, Processes, Processor};

/// Changes the names of spans, makes attributes of parts of them, and sets how spans ended.
///
/// It takes traces only. Spans that `include` does not select or `exclude` leaves alone go on as they are.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct SpanArguments {
    /// Which spans to change.
    #[flatten]
    selection: Selection,
    /// How to change names.
    #[block(optional)]
    name: Name,
    /// What to say of how spans ended.
    #[block]
    status: Option<Status>,
    /// Where to send what was changed.
    #[block]
    output: Output,
    /// Which metrics of its own the component has.
    #[block(optional)]
    debug_metrics: DebugMetrics,
}

/// How to change names.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub struct Name {
    /// Keys of attributes: their values, one after the other, become the name of a span that has all of them.
    #[arg(optional)]
    from_attributes: Vec<String>,
    /// What stands between these values.
    #[arg(optional)]
    separator: String,
    /// How to make attributes of parts of the name. That is done after `from_attributes`.
    #[block]
    to_attributes: Option<ToAttributes>,
}

/// How to make attributes of parts of a name.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct ToAttributes {
    /// Regular expressions in the syntax of RE2. What a group of one that matches holds becomes the attribute of the group's
    /// name, and in the name of the span the group's name in braces takes its place. Each expression sees the name as
    /// the one before left it.
    rules: Vec<String>,
    /// Whether to stop at the first expression that matches.
    #[arg(default = false)]
    break_after_match: bool,
    /// Whether names stay as they are.
    #[arg(default = false)]
    keep_original_name: bool,
}

/// What to say of how spans ended.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct Status {
    /// `Ok`, `Error` or `Unset`.
    code: String,
    /// What went wrong, with `Error`.
    #[arg(optional)]
    description: String,
}

impl Status {
    fn number(&self) -> Option<i32> {
        ["Unset", "Ok", "Error"].iter().position(|code| *code == self.code).map(|code| code as i32)
    }
}

impl SpanArguments {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        if let Some(status) = &self.status {
            if status.number().is_none() {
                errors.push(&["status"], format!("status code is set to an invalid value of {:?}", status.code));
            } else if status.code != "Error" && !status.description.is_empty() {
                errors.push(&["status"], "status description should be empty for non-error status codes");
            }
        }
        errors.into_result()
    }

    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        let rules = self.name.to_attributes.as_ref().map_or(&[][..], |to| &to.rules);
        errors.require(
            !self.name.from_attributes.is_empty() || !rules.is_empty() || self.status.is_some(),
            &["name", "status"],
            concat!(
                r#"error creating "span" processor: either "from_attributes" or "to_attributes" must be specified in "#,
                r#""name:" or "setStatus" must be specified"#
            ),
        );
        if let Err(message) = self.selection.compile::<Span>() {
            errors.push(&["include", "exclude"], message);
        }
        if let Err(message) = compile(rules) {
            errors.push(&["name"], message);
        }
        errors.into_result()
    }
}

fn compile(rules: &[String]) -> Result<Vec<GoRegex>, String> {
    rules.iter().map(|rule| GoRegex::new(rule).map_err(|_| format!("invalid regexp pattern {rule}"))).collect()
}

/// The component.
pub(crate) type SpanProcessor = Processor<Spans>;

/// What makes it.
pub(crate) struct Spans;

impl Kind for Spans {
    const NAME: &'static str = "otelcol.processor.span";
    const TYPE: &'static str = "span";
    type Arguments = SpanArguments;

    fn output(arguments: &SpanArguments) -> &Output {
        &arguments.output
    }

    fn processes(arguments: &SpanArguments, _: &Context<Processor<Self>>) -> Result<Processes, Error> {
        let SpanArguments { selection, name, status, .. } = arguments.clone();
        let to = name.to_attributes;
        let change = Change {
            filter: selection.compile::<Span>()?,
            from_attributes: name.from_attributes,
            separator: name.separator,
            rules: compile(to.as_ref().map_or(&[], |to| &to.rules))?,
            breaks: to.as_ref().is_some_and(|to| to.break_after_match),
            renames: to.as_ref().is_none_or(|to| !to.keep_original_name),
            status: status.and_then(|status| Some((status.number()?, status.description))),
        };
        Ok(Processes { traces: Some(Arc::new(change)), ..Processes::default() })
    }
}

/// Changes spans.
struct Change {
    filter: Filter,
    from_attributes: Vec<String>,
    separator: String,
    rules: Vec<GoRegex>,
    /// Whether to stop at the first rule that matches.
    breaks: bool,
    /// Whether rules change the name.
    renames: bool,
    status: Option<(i32, String)>,
}

impl Process<Traces> for Change {
    fn process(
        &self,
        mut batch: corten_otlp::Batch<Span>,
        _: &mut Pass<'_>,
    ) -> Result<corten_otlp::Batch<Span>, ConsumeError> {
        let mut scratch = Scratch::default();
        let mut data = batch.take_data();
        for part in &mut data {
            let description = match &self.status {
                Some((_, description)) => part.arena.own(description.as_bytes()),
                None => Text::EMPTY,
            };
            self.filter.each(part, &mut scratch, |span, arena, scratch| {
                self.name(span, arena, &mut scratch.text);
                self.attributes(span, arena, scratch);
                if let Some((code, _)) = self.status {
                    span.status.code = code;
                    span.status.message = description;
                }
            });
        }
        Ok(batch.with(data))
    }
}

impl Change {
    /// Makes the name of attributes.
    fn name(&self, span: &mut Span, arena: &mut Arena, name: &mut Vec<u8>) {
        if self.from_attributes.is_empty() {
            return;
        }
        name.clear();
        for (at, key) in self.from_attributes.iter().enumerate() {
            let Some(value) = arena.get(span.attributes, key.as_bytes()) else { return };
            if at > 0 {
                name.extend_from_slice(self.separator.as_bytes());
            }
            if !write_plain(arena, value, name) {
                name.extend_from_slice(b"<unknown-attribute-type>");
            }
        }
        span.name = arena.own(name);
    }

    /// Makes attributes of parts of the name.
    fn attributes(&self, span: &mut Span, arena: &mut Arena, scratch: &mut Scratch) {
        let Scratch { lossy, groups, text: name } = scratch;
        if span.name.is_empty() {
            return;
        }
        for rule in &self.rules {
            let old = span.name;
            if !rule.captures_bytes(arena.bytes(old), lossy, groups) {
                continue;
            }
            name.clear();
            let mut copied = 0;
            for (group, key) in rule.group_names().enumerate() {
                let key = key.unwrap_or_default();
                let found = groups.get(group + 1);
                let value = Value::Str(found.clone().map_or(Text::EMPTY, |range| arena.part(old, range)));
                arena.put(&mut span.attributes, key.as_bytes(), value);
                // A group that took no part in the match, or that is within another one, has no place of its own in the name.
                if let Some(found) = found.filter(|found| found.start >= copied) {
                    name.extend_from_slice(&arena.bytes(old)[copied..found.start]);
                    name.push(b'{');
                    name.extend_from_slice(key.as_bytes());
                    name.push(b'}');
                    copied = found.end;
                }
            }
            if self.renames {
                name.extend_from_slice(&arena.bytes(old)[copied..]);
                span.name = arena.own(name);
            }
            if self.breaks {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_component::Definition;
    use corten_testkit::{OtlpSink, Unit, host};

    use crate::process::{hostile, recorded};

    #[tokio::test]
    async fn spans_change_as_they_do_in_the_reference() {
        recorded::check::<SpanProcessor>(include_str!("../../tests/data/processor_span.json")).await;
    }

    #[tokio::test]
    async fn hostile_telemetry_does_no_harm() {
        hostile::survives::<SpanProcessor>(&[r#"
            name {
                from_attributes = ["a", "service.name"]
                separator       = "::"
                to_attributes {
                    rules = ["(?P<x>.(?P<y>.)?)(?P<z>never)?", "(?P<e>)", "()"]
                }
            }
            status {
                code = "Ok"
            }"#])
        .await;
    }

    #[tokio::test]
    async fn what_changes_nothing_or_contradicts_itself_is_refused() {
        let sink = OtlpSink::default();
        for (body, want) in [
            ("", "either \"from_attributes\" or \"to_attributes\" must be specified"),
            ("status {\ncode = \"fine\"\n}", "status code is set to an invalid value of \"fine\""),
            (
                "status {\ncode = \"Ok\"\ndescription = \"x\"\n}",
                "status description should be empty for non-error status codes",
            ),
            ("name {\nto_attributes {\nrules = [\"(\"]\n}\n}", "invalid regexp pattern ("),
        ] {
            let body = format!("{body}\noutput {{\ntraces = [sink]\n}}");
            let definition = Definition::of::<SpanProcessor>();
            let host = host("otelcol.processor.span.a");
            let error = Unit::start_with(host, &definition, &body, &[("sink", sink.value())]).await.unwrap_err();
            assert!(error.contains(want), "{error}");
        }
    }
}
