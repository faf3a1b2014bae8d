//! Label sets.
//!
//! A label set is stored, sorted by name, in the bytes of the `labels` field of a remote write 1 `TimeSeries`
//! (`prometheus.TimeSeries`, field 1, repeated `Label { 1: name, 2: value }`): a sink copies it, and only what reads or
//! changes labels walks it.

use std::fmt;

/// The label that holds a series' name.
pub const METRIC_NAME: &str = "__name__";

/// A sorted label set in its encoded form.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Labels<'a> {
    encoded: &'a [u8],
}

/// Why a label set was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelError {
    /// Two labels of one name.
    Duplicate(String),
    /// The encoded set is longer than [`ENCODED_BYTES_MAX`].
    TooLong(usize),
}

impl fmt::Display for LabelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LabelError::Duplicate(name) => write!(f, "label name \"{name}\" is not unique: invalid sample"),
            LabelError::TooLong(len) => {
                write!(f, "label set of {len} bytes is longer than the limit of {ENCODED_BYTES_MAX} bytes")
            }
        }
    }
}

impl std::error::Error for LabelError {}

/// The longest label set that is accepted, in its encoded form, in bytes.
pub const ENCODED_BYTES_MAX: usize = 16 << 20;

impl<'a> Labels<'a> {
    /// The empty set.
    pub const EMPTY: Labels<'static> = Labels { encoded: &[] };

    /// Takes bytes that [`LabelsBuilder`] wrote.
    pub(crate) fn from_encoded(encoded: &'a [u8]) -> Self {
        Labels { encoded }
    }

    /// The set as the repeated `labels` field of a remote write 1 `TimeSeries`.
    pub fn as_encoded(&self) -> &'a [u8] {
        self.encoded
    }

    /// Whether the set has no label.
    pub fn is_empty(&self) -> bool {
        self.encoded.is_empty()
    }

    /// The labels as (name, value), sorted by name.
    pub fn iter(&self) -> LabelsIter<'a> {
        LabelsIter { rest: self.encoded }
    }

    /// The value of a label, if the set has it.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.iter().take_while(|(n, _)| *n <= name).find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    /// The hash by which a series is assigned to a partition and looked up.
    pub fn hash64(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64(self.encoded)
    }
}

impl fmt::Debug for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Prints `{a="b", c="d"}`, the form in which the reference shows a label set.
impl fmt::Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (name, value)) in self.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{name}={value:?}")?;
        }
        f.write_str("}")
    }
}

/// Iterates over (name, value).
#[derive(Clone)]
pub struct LabelsIter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for LabelsIter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let (label, rest) = split_field(self.rest)?;
        let (name, value) = split_field(label)?;
        let (value, _) = split_field(value)?;
        self.rest = rest;
        Some((std::str::from_utf8(name).ok()?, std::str::from_utf8(value).ok()?))
    }
}

/// Splits `tag, length, body` from the front: (body, what follows).
fn split_field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut len = 0usize;
    let mut at = 1;
    loop {
        let byte = *bytes.get(at)?;
        len |= usize::from(byte & 0x7f) << (7 * (at - 1));
        at += 1;
        if byte < 0x80 {
            break;
        }
        if at > 5 {
            return None;
        }
    }
    bytes.get(at..at + len).map(|body| (body, &bytes[at + len..]))
}

/// Writes a variable-length integer of the protocol buffers encoding.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The length of [`put_varint`]'s output.
pub const fn varint_len(value: u64) -> usize {
    // Seven bits a byte: (bits + 6) / 7, at least one.
    ((64 - (value | 1).leading_zeros() as usize) * 9 + 64) / 64
}

/// Collects labels in any order and encodes them sorted. Reused from set to set: it keeps its allocations.
#[derive(Default, Debug, Clone)]
pub struct LabelsBuilder {
    text: String,
    // (start of name, end of name = start of value, end of value); a removed label has an empty value.
    spans: Vec<(u32, u32, u32)>,
}

impl LabelsBuilder {
    /// An empty builder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets all labels.
    pub fn clear(&mut self) {
        self.text.clear();
        self.spans.clear();
    }

    /// Takes over the labels of a set.
    pub fn extend_from(&mut self, labels: Labels<'_>) {
        for (name, value) in labels.iter() {
            self.push(name, value);
        }
    }

    /// Adds a label without looking for one of the same name.
    pub fn push(&mut self, name: &str, value: &str) {
        let start = self.text.len() as u32;
        self.text.push_str(name);
        let middle = self.text.len() as u32;
        self.text.push_str(value);
        self.spans.push((start, middle, self.text.len() as u32));
    }

    /// Sets a label; an empty value removes it.
    pub fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        if !value.is_empty() {
            self.push(name, value);
        }
    }

    /// Removes a label.
    pub fn remove(&mut self, name: &str) {
        let text = &self.text;
        self.spans.retain(|&(s, m, _)| text[s as usize..m as usize] != *name);
    }

    /// The value of a label; the first if there are several.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    /// The labels in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.spans.iter().map(|&(s, m, e)| (&self.text[s as usize..m as usize], &self.text[m as usize..e as usize]))
    }

    /// How many labels there are, empty ones included.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is no label.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Keeps the labels for which the function says so.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &str) -> bool) {
        let text = &self.text;
        self.spans.retain(|&(s, m, e)| keep(&text[s as usize..m as usize], &text[m as usize..e as usize]));
    }

    /// Sorts by name, leaves out labels with an empty value, and appends the encoded set to `out`.
    ///
    /// # Errors
    ///
    /// A name that stands twice, or a set longer than [`ENCODED_BYTES_MAX`]; `out` is then as before.
    pub fn encode_into(&mut self, out: &mut Vec<u8>) -> Result<(), LabelError> {
        self.encode(out, false)
    }

    /// As [`encode_into`](Self::encode_into), with the labels whose value is empty: a stream of logs may have them.
    ///
    /// # Errors
    ///
    /// As [`encode_into`](Self::encode_into).
    pub fn encode_all_into(&mut self, out: &mut Vec<u8>) -> Result<(), LabelError> {
        self.encode(out, true)
    }

    fn encode(&mut self, out: &mut Vec<u8>, with_empty: bool) -> Result<(), LabelError> {
        let text = self.text.as_bytes();
        let name_of = |s: &(u32, u32, u32)| &text[s.0 as usize..s.1 as usize];
        self.spans.sort_by(|a, b| name_of(a).cmp(name_of(b)));
        if let Some(twice) = self.spans.windows(2).find(|w| name_of(&w[0]) == name_of(&w[1])) {
            return Err(LabelError::Duplicate(String::from_utf8_lossy(name_of(&twice[0])).into_owned()));
        }
        let before = out.len();
        for &(s, m, e) in &self.spans {
            if m == e && !with_empty {
                continue;
            }
            let (name, value) = (&text[s as usize..m as usize], &text[m as usize..e as usize]);
            let body = 2 + varint_len(name.len() as u64) + name.len() + varint_len(value.len() as u64) + value.len();
            out.push(0x0a);
            put_varint(out, body as u64);
            out.push(0x0a);
            put_varint(out, name.len() as u64);
            out.extend_from_slice(name);
            out.push(0x12);
            put_varint(out, value.len() as u64);
            out.extend_from_slice(value);
        }
        let len = out.len() - before;
        if len > ENCODED_BYTES_MAX {
            out.truncate(before);
            return Err(LabelError::TooLong(len));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn labels_are_stored_sorted_and_without_empty_values() {
        let mut builder = LabelsBuilder::new();
        builder.push("b", "2");
        builder.push("a", "1");
        builder.push("c", "");
        let mut bytes = Vec::new();
        builder.encode_into(&mut bytes).unwrap();
        assert_eq!(bytes, b"\x0a\x06\x0a\x01a\x12\x011\x0a\x06\x0a\x01b\x12\x012");
        assert_eq!(Labels::from_encoded(&bytes).to_string(), r#"{a="1", b="2"}"#);
    }

    #[test]
    fn a_label_name_may_not_stand_twice() {
        let mut builder = LabelsBuilder::new();
        builder.push("a", "1");
        builder.push("a", "2");
        let mut bytes = vec![7];
        assert_eq!(builder.encode_into(&mut bytes), Err(LabelError::Duplicate("a".into())));
        assert_eq!(bytes, [7]);
    }

    #[test]
    fn setting_a_label_replaces_it_and_an_empty_value_removes_it() {
        let mut builder = LabelsBuilder::new();
        builder.set("a", "1");
        builder.set("a", "2");
        assert_eq!(builder.get("a"), Some("2"));
        builder.set("a", "");
        assert_eq!(builder.get("a"), None);
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_read_back(map in proptest::collection::btree_map("[a-z]{1,9}", "\\PC{1,200}", 0..20)) {
            let mut builder = LabelsBuilder::new();
            for (name, value) in map.iter().rev() {
                builder.push(name, value);
            }
            let mut bytes = Vec::new();
            builder.encode_into(&mut bytes).unwrap();
            let labels = Labels::from_encoded(&bytes);
            let back: Vec<_> = labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
            prop_assert_eq!(back, map.clone().into_iter().collect::<Vec<_>>());
            for (name, value) in &map {
                prop_assert_eq!(labels.get(name), Some(value.as_str()));
            }
            prop_assert_eq!(labels.get("zzzzzzzzzzz"), None);
        }

        #[test]
        fn the_length_of_a_varint_is_predicted(value: u64) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_len(value));
        }
    }
}
