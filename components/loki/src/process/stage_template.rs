//! `stage.template`, and the templates of other stages.

use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;

use corten_component::Logger;
use corten_component::log::Level;
use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_config::decode::TextType;
use corten_config::decode_text;
use corten_golang::template::{Data, Template};

use super::stage::{Build, Compile, Emit, Next, Shown, Slot, Stage, StageError, Value, Work};
use super::work::write_plain;

/// Makes a text of extracted values, with a template in the language of Go's `text/template`, and stores it as an extracted
/// value.
///
/// The template sees extracted values by their names, all as texts, the log line as `.Entry`, and the value named by
/// `source`, if it exists, as `.Value`. An empty result removes the value; a template that fails changes nothing.
///
/// Besides Go's own functions there are `ToLower`, `ToUpper`, `Replace`, `Trim`, `TrimLeft`, `TrimRight`, `TrimPrefix`,
/// `TrimSuffix`, `TrimSpace`, `Hash`, `Sha2Hash`, `regexReplaceAll`, `regexReplaceAllLiteral`, and the text functions of
/// sprig.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct TemplateStage {
    /// Name of the extracted value to set.
    source: String,
    /// The template.
    template: TemplateText,
}

impl TemplateStage {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        errors.require(!self.source.is_empty(), &["source"], "template source value is required");
        errors.into_result()
    }
}

/// The name of templates in error texts.
pub(super) const TEMPLATE_NAME: &str = "pipeline_template";

/// A template as it was written, and parsed.
#[derive(Clone, Debug)]
pub(super) struct TemplateText {
    text: String,
    parsed: Arc<Template>,
}

impl PartialEq for TemplateText {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl TextType for TemplateText {
    fn parse(text: &str) -> Result<Self, String> {
        let parsed = Template::parse(TEMPLATE_NAME, text).map_err(|error| error.to_string())?;
        Ok(TemplateText { text: text.to_owned(), parsed: Arc::new(parsed) })
    }

    fn text(&self) -> String {
        self.text.clone()
    }

    fn null() -> Option<Self> {
        Self::parse("").ok()
    }
}

decode_text!(TemplateText);

impl Build for TemplateStage {
    fn build(&self, cx: &mut Compile<'_>) -> Result<Box<dyn Stage>, StageError> {
        let source = cx.slot(&self.source);
        need_values(&self.template.parsed, cx);
        Ok(Box::new(Run { source, template: Arc::clone(&self.template.parsed), logger: cx.logger() }))
    }
}

/// Says which extracted values a template may read.
pub(super) fn need_values(template: &Template, cx: &mut Compile<'_>) {
    match template.names() {
        Some(names) => names.into_iter().for_each(|name| _ = cx.slot(name)),
        None => cx.need_all_values(),
    }
}

/// What a template sees of an entry.
pub(super) struct Seen<'a> {
    pub(super) work: &'a Work,
    /// `.Entry`, if there is one.
    pub(super) line: Option<&'a [u8]>,
    /// `.Value`, if there is one.
    pub(super) value: Option<Cow<'a, [u8]>>,
    /// Whether it is a map of texts only, as Go has it.
    pub(super) is_texts: bool,
}

/// The string of a value; nothing for one that has none.
pub(super) fn shown(value: Shown<'_>) -> Option<Cow<'_, [u8]>> {
    match value {
        Shown::Text(text) => Some(Cow::Borrowed(text)),
        Shown::Other(Value::Absent | Value::Nil | Value::Opaque | Value::Text(_)) => None,
        Shown::Other(other) => {
            let mut out = Vec::new();
            write_plain(&mut out, other);
            Some(Cow::Owned(out))
        }
    }
}

/// The string of a value of an entry.
pub(super) fn shown_of(work: &Work, value: Value) -> Option<Cow<'_, [u8]>> {
    match value {
        Value::Text(text) => Some(Cow::Borrowed(work.bytes(text))),
        other => shown(Shown::Other(other)),
    }
}

impl Data for Seen<'_> {
    fn get(&self, name: &[u8]) -> Option<Cow<'_, [u8]>> {
        match (name, self.line, &self.value) {
            (b"Entry", Some(line), _) => Some(Cow::Borrowed(line)),
            (b"Value", _, Some(value)) => Some(Cow::Borrowed(value)),
            _ => shown_of(self.work, self.work.value_named(name)),
        }
    }

    fn each(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        self.work.for_each_value(|name, value| {
            if let Some(text) = shown(value) {
                visit(name, &text);
            }
        });
        if let Some(value) = &self.value {
            visit(b"Value", value);
        }
        if let Some(line) = self.line {
            visit(b"Entry", line);
        }
    }

    fn is_texts(&self) -> bool {
        self.is_texts
    }
}

/// The largest output for which memory is kept from entry to entry, in bytes.
const KEPT_BYTES_MAX: usize = 64 << 10;

thread_local! {
    static OUTPUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Lends an empty buffer.
pub(super) fn with_buffer<R>(run: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    let mut buffer = OUTPUT.take();
    buffer.clear();
    let result = run(&mut buffer);
    if buffer.capacity() <= KEPT_BYTES_MAX {
        OUTPUT.replace(buffer);
    }
    result
}

/// Says that a template failed, as the reference does.
pub(super) fn tell_failure(logger: Option<&Logger>, error: &impl ToString) {
    if let Some(logger) = logger.filter(|logger| logger.takes(Level::Debug)) {
        logger.debug("failed to execute template on extracted value", &[("err", error.to_string().into())]);
    }
}

struct Run {
    source: Slot,
    template: Arc<Template>,
    logger: Option<Logger>,
}

impl Stage for Run {
    fn run(&self, work: &mut Work, _: &mut Emit) -> Next {
        with_buffer(|out| {
            let seen = Seen {
                work,
                line: Some(work.bytes(work.line())),
                value: shown_of(work, work.value(self.source)),
                is_texts: false,
            };
            match self.template.execute(&seen, out) {
                Err(error) => tell_failure(self.logger.as_ref(), &error),
                Ok(()) if out.is_empty() => work.set_value(self.source, Value::Absent),
                Ok(()) => {
                    let text = work.add(out);
                    work.set_value(self.source, Value::Text(text));
                }
            }
        });
        Next::Keep
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::process::testing::{recorded, run, stages};

    #[test]
    fn it_does_what_the_reference_does() {
        assert!(recorded("template") >= 100);
    }

    #[test]
    fn a_function_that_is_not_supported_is_a_load_error() {
        let error = stages("stage.template {\n source = \"a\"\n template = \"{{ genCA `a` 1 }}\"\n}").unwrap_err();
        assert!(error.ends_with("template: pipeline_template:1: function \"genCA\" is not supported"), "{error}");
    }

    #[test]
    fn a_line_that_is_no_text_passes() {
        let stages =
            "stage.template {\n source = \"a\"\n template = \"<{{ .Entry }}>\"\n}\nstage.output {\n source = \"a\"\n}";
        let ran = run(stages, &[json!({ "line": { "b64": "Yf9i" } })]).unwrap();
        assert_eq!(ran.entries[0]["line"], json!({ "bytes": b"<a\xffb>" }));
    }

    #[test]
    fn a_template_that_does_not_end_changes_nothing() {
        let stages = "stage.template {\n source = \"a\"\n template = \"{{ range 100000 }}x{{ end }}\"\n}";
        let ran = run(stages, &[json!({ "line": "x", "labels": { "a": "1" } })]).unwrap();
        assert_eq!(ran.entries[0]["extracted"]["a"], "1");
    }
}
