//! Labels of Prometheus that are made of attributes.

use corten_otlp::{Arena, Value};
use corten_signal::LabelsBuilder;

use super::{chars, is_letter_or_digit};

/// Labels of which the last one of a name counts. Reused from set to set: it keeps its allocations.
#[derive(Debug, Default)]
pub(crate) struct LastCounts {
    text: String,
    /// Where names begin, where they end and values begin, and where those end.
    spans: Vec<(usize, usize, usize)>,
    value: Vec<u8>,
}

impl LastCounts {
    /// Forgets all labels.
    pub(crate) fn clear(&mut self) {
        self.text.clear();
        self.spans.clear();
    }

    /// Sets a label. An empty value removes it.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        let start = self.text.len();
        self.text.push_str(name);
        let middle = self.text.len();
        self.text.push_str(value);
        self.spans.push((start, middle, self.text.len()));
    }

    /// Sets the label of an attribute. One without a name is none.
    pub(crate) fn set_attribute(&mut self, arena: &Arena, key: &[u8], value: Value) {
        if key.is_empty() {
            return;
        }
        let start = self.text.len();
        push_name(key, &mut self.text);
        let middle = self.text.len();
        self.value.clear();
        arena.write_text(value, &mut self.value);
        self.text.push_str(&String::from_utf8_lossy(&self.value));
        self.spans.push((start, middle, self.text.len()));
    }

    /// Adds the labels that count to a builder.
    pub(crate) fn fill(&mut self, builder: &mut LabelsBuilder) {
        let text = &self.text;
        let name = |span: &(usize, usize, usize)| &text[span.0..span.1];
        // The sort is stable: the last of a name stays the last.
        self.spans.sort_by(|a, b| name(a).cmp(name(b)));
        for (at, span) in self.spans.iter().enumerate() {
            let is_last = self.spans.get(at + 1).is_none_or(|next| name(next) != name(span));
            if is_last && span.1 < span.2 {
                builder.push(name(span), &text[span.1..span.2]);
            }
        }
    }
}

/// Appends the name of a label that is made of an attribute's key.
pub(crate) fn push_name(key: &[u8], out: &mut String) {
    let start = out.len();
    let letter = |char| if is_letter_or_digit(char) { char } else { '_' };
    out.extend(chars(key).map(letter));
    let name = &out[start..];
    if name.starts_with(|first: char| first.is_ascii_digit()) {
        out.insert_str(start, "key_");
    } else if name.starts_with('_') && !name.starts_with("__") {
        // Names that begin with one underscore are nobody's, and those that begin with two are reserved.
        out.insert_str(start, "key");
    }
}
