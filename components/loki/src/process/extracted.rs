//! The extracted map: what stages found out about an entry, by name.

use std::collections::HashMap;
use std::ops::Range;

/// A text of an entry: its line, a label, something that a stage wrote, or something of the configuration.
///
/// It is a place, which [`Work::bytes`](super::work::Work::bytes) reads, and costs nothing to copy. It holds as long as the
/// entry is with the pipeline, except over [`Work::hold`](super::work::Work::hold).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Text {
    pub(super) place: u32,
    pub(super) at: u32,
    pub(super) len: u32,
}

/// The text of the configuration.
pub(super) const CONSTANTS: u32 = 0;
/// What was written for this entry.
pub(super) const SCRATCH: u32 = 1;
/// The labels that the entry came with.
pub(super) const LABELS: u32 = 2;
/// The line that the entry came with.
pub(super) const LINE: u32 = 3;
/// From here on the names and values, in turn, of the metadata that the entry came with.
pub(super) const METADATA: u32 = 4;

impl Text {
    /// No text.
    pub(crate) const EMPTY: Text = Text { place: CONSTANTS, at: 0, len: 0 };

    pub(super) fn new(place: u32, at: usize, len: usize) -> Self {
        Text { place, at: at as u32, len: len as u32 }
    }

    pub(super) fn range(self) -> Range<usize> {
        self.at as usize..self.at as usize + self.len as usize
    }

    /// How long it is, in bytes.
    pub(crate) fn len(self) -> usize {
        self.len as usize
    }

    /// Whether it is empty.
    pub(crate) fn is_empty(self) -> bool {
        self.len == 0
    }

    /// A part of it. What lies outside is left out.
    pub(crate) fn slice(self, range: Range<usize>) -> Text {
        let end = range.end.min(self.len());
        let start = range.start.min(end);
        Text { place: self.place, at: self.at + start as u32, len: (end - start) as u32 }
    }
}

/// The place of a name in the extracted map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Slot(pub(super) u32);

/// A value of the extracted map.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub(crate) enum Value {
    /// The map does not have the name.
    #[default]
    Absent,
    /// The name is there without a value: null in JSON, or what an expression did not find.
    Nil,
    /// A bool.
    Bool(bool),
    /// A number.
    Float(f64),
    /// A whole number, which is shown with all its digits.
    Uint(u64),
    /// A text. It need not be UTF-8.
    Text(Text),
    /// Something that has no string: a list or object.
    Opaque,
}

impl Value {
    /// Whether the map has the name; it may be without a value.
    pub(crate) fn is_present(self) -> bool {
        self != Value::Absent
    }
}

/// The most names that a pipeline may use.
const SLOTS_MAX: usize = 1 << 20;

/// The names and texts that a pipeline uses.
#[derive(Debug, Default)]
pub(crate) struct Names {
    text: Vec<u8>,
    slots: Vec<Text>,
    by_name: HashMap<Box<[u8]>, Slot>,
    all: bool,
}

impl Names {
    pub(super) fn slot(&mut self, name: &str) -> Slot {
        if let Some(slot) = self.find(name.as_bytes()) {
            return slot;
        }
        let slot = Slot(self.slots.len().min(SLOTS_MAX) as u32);
        let text = self.constant(name.as_bytes());
        self.slots.push(text);
        self.by_name.insert(name.as_bytes().into(), slot);
        slot
    }

    pub(super) fn constant(&mut self, text: &[u8]) -> Text {
        let at = self.text.len();
        self.text.extend_from_slice(text);
        Text::new(CONSTANTS, at, text.len())
    }

    pub(super) fn keep_all(&mut self) {
        self.all = true;
    }

    /// Whether values of names without a slot are kept.
    pub(super) fn keeps_all(&self) -> bool {
        self.all
    }

    /// The slot of a name, if a stage uses it.
    pub(crate) fn find(&self, name: &[u8]) -> Option<Slot> {
        self.by_name.get(name).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn bytes(&self, text: Text) -> &[u8] {
        self.text.get(text.range()).unwrap_or_default()
    }

    /// The slots with their names.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Slot, &[u8])> {
        self.slots.iter().enumerate().map(|(at, name)| (Slot(at as u32), self.bytes(*name)))
    }
}
