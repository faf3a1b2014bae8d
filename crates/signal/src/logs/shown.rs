//! How entries look.

use memchr::memmem;
use std::borrow::Cow;

use super::{Entries, Entry, Stream};
use crate::tap::{Fields, Item, Look, push_quoted};

pub(super) fn show(entries: &Entries, look: &mut Look<'_>) {
    for (stream, part) in entries.parts() {
        for entry in part {
            if !look(&Shown { entries, stream, entry }) {
                return;
            }
        }
    }
}

struct Shown<'b> {
    entries: &'b Entries,
    stream: &'b Stream,
    entry: &'b Entry,
}

impl Shown<'_> {
    fn line(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.entries.line(self.entry))
    }
}

/// The value that a line gives a name, as logfmt (`name=value`, `name="a value"`) or as a member of JSON (`"name": value`).
/// It is the first text of that form: a line is not read as a whole.
fn in_line(line: &[u8], name: &str) -> Option<String> {
    let ends_name = |before: Option<&u8>| before.is_none_or(|byte| matches!(byte, b' ' | b'\t' | b'{' | b',' | b'"'));
    for at in memmem::find_iter(line, name.as_bytes()) {
        let before = at.checked_sub(1).and_then(|before| line.get(before));
        if !ends_name(before) {
            continue;
        }
        let rest = &line[at + name.len()..];
        let value = match (before, rest) {
            (Some(b'"'), [b'"', rest @ ..]) => rest.trim_ascii_start().strip_prefix(b":").map(<[u8]>::trim_ascii_start),
            (Some(b'"'), _) => None,
            (_, rest) => rest.strip_prefix(b"="),
        };
        let Some(value) = value else { continue };
        return Some(match value.strip_prefix(b"\"") {
            Some(quoted) => unquoted(quoted),
            None => {
                let end = value.iter().position(|byte| matches!(byte, b' ' | b'\t' | b',' | b'}' | b']'));
                String::from_utf8_lossy(&value[..end.unwrap_or(value.len())]).into_owned()
            }
        });
    }
    None
}

/// A text up to the quote that ends it; what a backslash stands before is taken as it is.
fn unquoted(text: &[u8]) -> String {
    let mut value = Vec::new();
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => break,
            b'\\' => value.extend(bytes.next()),
            byte => value.push(*byte),
        }
    }
    String::from_utf8_lossy(&value).into_owned()
}

/// A text without control characters, line ends among them.
fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for char in text.chars() {
        if char.is_control() { out.extend(char.escape_default()) } else { out.push(char) }
    }
    Cow::Owned(out)
}

impl Item for Shown<'_> {
    fn any_text(&self, accept: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        accept(self.entries.line(self.entry))
            || self.stream.labels().iter().any(|(name, value)| accept(name.as_bytes()) || accept(value.as_bytes()))
            || self.entries.metadata(self.entry).any(|(name, value)| accept(name) || accept(value))
    }

    fn field(&self, name: &str) -> Option<String> {
        if let Some(value) = self.stream.labels().get(name) {
            return Some(value.to_owned());
        }
        let mut metadata = self.entries.metadata(self.entry);
        if let Some((_, value)) = metadata.find(|(known, _)| *known == name.as_bytes()) {
            return Some(String::from_utf8_lossy(value).into_owned());
        }
        match name {
            "line" => Some(self.line().into_owned()),
            _ => in_line(self.entries.line(self.entry), name),
        }
    }

    fn text(&self) -> String {
        let (selector, line) = (self.stream.selector(), self.line());
        let mut out = String::with_capacity(selector.len() + line.len() + 64);
        out.push_str(selector);
        out.push(' ');
        out.push_str(&one_line(&line));
        for (name, value) in self.entries.metadata(self.entry) {
            out.push(' ');
            out.push_str(&String::from_utf8_lossy(name));
            out.push('=');
            push_quoted(&mut out, &String::from_utf8_lossy(value));
        }
        out
    }

    fn fields(&self, out: &mut Fields<'_>) {
        out.members(|out| {
            out.object("labels", |out| self.stream.labels().iter().for_each(|(name, value)| out.text(name, value)));
            out.text("line", &self.line());
            out.object("structured_metadata", |out| {
                for (name, value) in self.entries.metadata(self.entry) {
                    out.text(&String::from_utf8_lossy(name), &String::from_utf8_lossy(value));
                }
            });
            // As text: a browser's numbers cannot hold it.
            out.text("timestamp_ns", &self.entry.timestamp_ns.to_string());
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::{EntriesBuilder, Logs, LogsBatch};
    use super::*;
    use crate::flow::Signal;
    use crate::tap::tests::structure;
    use serde_json::json;

    #[test]
    fn entries_are_shown_with_their_stream_and_metadata() {
        let mut builder = EntriesBuilder::new();
        let part = builder.stream(&Stream::of([("app", "web")]).unwrap());
        let (line, name, value) = (builder.own(b"hello \n\xff"), builder.own(b"trace_id"), builder.own(b"x"));
        builder.push(part, 1_700_000_000_000_000_001, line);
        builder.push_metadata(name, value);
        let batch = LogsBatch::of(builder.finish(0));
        let mut seen = 0;
        Logs::show(&batch, &mut |item: &dyn Item| {
            seen += 1;
            assert_eq!(item.text(), "{app=\"web\"} hello \\n\u{fffd} trace_id=\"x\"");
            assert_eq!(
                structure(item),
                json!({
                    "labels": {"app": "web"},
                    "line": "hello \n\u{fffd}",
                    "structured_metadata": {"trace_id": "x"},
                    "timestamp_ns": "1700000000000000001",
                })
            );
            for (name, value) in [("app", "web"), ("trace_id", "x"), ("line", "hello \n\u{fffd}")] {
                assert_eq!(item.field(name).as_deref(), Some(value));
            }
            assert!(item.any_text(&mut |text| text.starts_with(b"hello")));
            true
        });
        assert_eq!((seen, Logs::weight(&batch)), (1, 8));
    }

    #[test]
    fn fields_of_a_line_are_found_in_logfmt_and_json() {
        for (line, name, value) in [
            ("level=error msg=\"a b\" n=5", "level", Some("error")),
            ("level=error msg=\"a \\\"b\\\"\" n=5", "msg", Some("a \"b\"")),
            ("level=error n=5", "n", Some("5")),
            ("sublevel=error level=info", "level", Some("info")),
            ("{\"level\": \"warn\", \"n\":7}", "level", Some("warn")),
            ("{\"level\": \"warn\", \"n\":7}", "n", Some("7")),
            ("the level is high", "level", None),
            ("level=", "level", Some("")),
            ("{\"level", "level", None),
        ] {
            assert_eq!(in_line(line.as_bytes(), name).as_deref(), value, "{line}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_line_is_too_strange(line in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60), name in "[a=\"]{0,2}") {
            let _ = in_line(&line, &name);
        }
    }
}
