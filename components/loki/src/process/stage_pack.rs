//! `stage.pack`.

use corten_config::Arguments;
use corten_golang::json::{Form, push_string};

use super::stage::{Build, Compile, Emit, Next, Slot, Stage, StageError, Text, Work, now_ns};

/// Packs the log line and some labels into a JSON object, which becomes the line.
///
/// The line is the field `_entry`. Extracted values, of which each label is one, are further fields, sorted by name;
/// the labels of their names are removed.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct PackStage {
    /// Names of the labels and extracted values to pack.
    labels: Vec<String>,
    /// Whether the entry gets the present time.
    #[arg(default = true)]
    ingest_timestamp: bool,
}

impl Build for PackStage {
    fn build(&self, cx: &mut Compile<'_>) -> Result<Box<dyn Stage>, StageError> {
        let mut names = self.labels.clone();
        names.sort();
        names.dedup();
        let fields = names
            .iter()
            .map(|name| {
                let mut key = Vec::new();
                push_json(name.as_bytes(), &mut key);
                Field { name: name.clone(), key, slot: cx.slot(name), label: cx.text(name) }
            })
            .collect();
        Ok(Box::new(Pack { fields, ingest_timestamp: self.ingest_timestamp }))
    }
}

struct Pack {
    fields: Vec<Field>,
    ingest_timestamp: bool,
}

struct Field {
    name: String,
    /// The name in JSON, with its quotes.
    key: Vec<u8>,
    slot: Slot,
    label: Text,
}

impl Stage for Pack {
    fn run(&self, work: &mut Work, _: &mut Emit) -> Next {
        let mut packed = vec![b'{'];
        for field in &self.fields {
            let Some(text) = work.text_of(work.value(field.slot)) else { continue };
            packed.extend_from_slice(&field.key);
            packed.push(b':');
            push_json(work.bytes(text), &mut packed);
            packed.push(b',');
            if work.label(&field.name).is_some() {
                work.remove_label(field.label);
            }
        }
        packed.extend_from_slice(b"\"_entry\":");
        push_json(work.bytes(work.line()), &mut packed);
        packed.push(b'}');
        let line = work.add(&packed);
        work.set_line(line);
        if self.ingest_timestamp {
            work.set_timestamp_ns(now_ns());
        }
        Next::Keep
    }
}

/// Appends a text as a JSON string.
fn push_json(text: &[u8], out: &mut Vec<u8>) {
    push_string(text, Form::ITERATOR_HTML, out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn entries_become_what_the_reference_makes_of_them() {
        assert!(super::super::testing::recorded("pack") >= 6);
    }

    #[test]
    fn strings_are_escaped_for_html() {
        let mut out = Vec::new();
        push_json("a\"\\\n\r\t<>&\u{1}\u{8}\u{7f}/é\u{2028}\u{2029}\u{2030}".as_bytes(), &mut out);
        push_json(b"\xff\xe2\x80", &mut out);
        let expected = "\"a\\\"\\\\\\n\\r\\t\\u003c\\u003e\\u0026\\u0001\\u0008\u{7f}/é\\u2028\\u2029\u{2030}\"\"\\ufffd\\ufffd\\ufffd\"";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    proptest! {
        #[test]
        fn what_is_packed_can_be_read(text in "(\\PC|[<>&\\x00-\\x1f\u{2028}\u{2029}\"\\\\]){0,40}") {
            let mut out = Vec::new();
            push_json(text.as_bytes(), &mut out);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }
}
