//! The entry that is with a stage.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::Arc;

use corten_signal::LabelsBuilder;
use corten_signal::acks::Acks;
use corten_signal::logs::{Entries, EntriesBuilder, Entry, Sharing, Stream, StreamCache};
use corten_signal::regex::{Groups, Lossy};
use hashbrown::HashTable;

use super::extracted::{CONSTANTS, LABELS, LINE, METADATA, Names, SCRATCH, Slot, Text, Value};
use super::json::Token;

/// How much room for texts is kept from entry to entry, in bytes.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// Beyond so many names without a slot they are looked up by their hashes.
const LINEAR_NAMES_MAX: usize = 16;

/// What a slot holds.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cell {
    /// Nothing was stored: the label that the entry came with counts.
    Untouched,
    /// This was stored; [`Value::Absent`] takes the name out of the map.
    Set(Value),
}

/// Where a value goes that was found.
#[derive(Clone, Copy, Debug)]
enum Key {
    Slot(Slot),
    Name(Text),
}

/// A change of a label set.
#[derive(Clone, Copy, Debug)]
struct Edit {
    name: Text,
    /// Nothing removes the label.
    value: Option<Text>,
}

/// The entry that is with a stage: its line, time, labels and metadata, and the extracted map. Reused from entry to entry.
pub(crate) struct Work {
    names: Arc<Names>,
    source: Arc<Entries>,
    entry: Option<Entry>,
    line: Text,
    timestamp_ns: i64,
    metadata: Vec<(Text, Text)>,
    /// The label set before the edits.
    stream: Stream,
    edits: Vec<Edit>,
    /// What was written for this entry.
    scratch: Vec<u8>,
    /// What is being written while a text of `scratch` is read.
    fresh: Vec<u8>,
    cells: Vec<Cell>,
    /// Values of names without a slot, where a pipeline wants them.
    extra: Vec<(Text, Value)>,
    /// The places of many such values, by the hashes of their names.
    extra_index: HashTable<u32>,
    hasher: RandomState,
    found: Vec<(Key, Value)>,
    /// The label set that the entry came with: the beginning of the extracted map.
    labels: Stream,
    /// The values of `labels` that have slots.
    labels_text: Vec<u8>,
    labels_by_slot: Vec<Option<Text>>,
    /// The labels without a slot.
    labels_besides: Vec<(Text, Text)>,
    cache: StreamCache,
    cache_key: Vec<u8>,
    builder: LabelsBuilder,
    groups: Groups,
    lossy: Lossy,
    json: JsonScratch,
    /// Those of the batch that is under way.
    batch_acks: Acks,
    /// Those of an entry that was held before, instead of the batch's.
    own_acks: Option<Acks>,
    /// How often a label set was too large.
    refused: u64,
    pub(super) tally: Tally,
}

/// What stages did with the entries that they keep.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// How many more entries are kept than before.
    pub(super) held: i64,
    /// How many went on within others, by the stage.
    pub(super) merged: Vec<(&'static str, usize)>,
}

impl Tally {
    fn merged(&mut self, stage: &'static str) {
        match self.merged.iter_mut().find(|(known, _)| *known == stage) {
            Some((_, count)) => *count += 1,
            None => self.merged.push((stage, 1)),
        }
    }
}

/// What a function that reads a text may use meanwhile: see [`Work::read`].
pub(crate) struct Tools<'a> {
    out: &'a mut Vec<u8>,
    base: usize,
    found: &'a mut Vec<(Key, Value)>,
    names: &'a Names,
    /// For the groups of a regular expression.
    pub(crate) groups: &'a mut Groups,
    /// For texts that are not UTF-8.
    pub(crate) lossy: &'a mut Lossy,
    /// For [JSON](super::json).
    pub(super) scratch: &'a mut JsonScratch,
}

/// What reading JSON uses again for the next text.
#[derive(Default)]
pub(super) struct JsonScratch {
    pub(super) stack: Vec<u8>,
    pub(super) tokens: Vec<Token>,
    pub(super) members: Vec<(Token, Token)>,
}

impl Tools<'_> {
    /// Copies a text.
    pub(crate) fn add(&mut self, bytes: &[u8]) -> Text {
        self.write(|out| out.extend_from_slice(bytes))
    }

    /// Keeps what the function appends. It must not touch what is there.
    pub(crate) fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Text {
        let start = self.out.len();
        write(self.out);
        written(self.out, self.base, start)
    }

    /// Remembers a value for a slot, until [`Work::keep_found`] or [`Work::forget_found`]. Of two for one slot the later
    /// counts.
    pub(crate) fn find(&mut self, slot: Slot, value: Value) {
        self.found.push((Key::Slot(slot), value));
    }

    /// As [`find`](Self::find), for a name that may be known only now. Nothing is remembered if no stage can read it.
    pub(crate) fn find_named(&mut self, name: &[u8], value: Value) {
        match self.names.find(name) {
            Some(slot) => self.find(slot, value),
            None if self.names.keeps_all() => {
                let name = self.add(name);
                self.found.push((Key::Name(name), value));
            }
            None => {}
        }
    }
}

impl Work {
    pub(super) fn new(names: Arc<Names>, empty: Stream) -> Self {
        Work {
            cells: vec![Cell::Untouched; names.len()],
            labels_by_slot: vec![None; names.len()],
            names,
            source: Arc::default(),
            entry: None,
            line: Text::EMPTY,
            timestamp_ns: 0,
            metadata: Vec::new(),
            stream: empty.clone(),
            edits: Vec::new(),
            scratch: Vec::new(),
            fresh: Vec::new(),
            extra: Vec::new(),
            extra_index: HashTable::new(),
            hasher: RandomState::new(),
            found: Vec::new(),
            labels: empty,
            labels_text: Vec::new(),
            labels_besides: Vec::new(),
            cache: StreamCache::default(),
            cache_key: Vec::new(),
            builder: LabelsBuilder::new(),
            groups: Groups::new(),
            lossy: Lossy::new(),
            json: JsonScratch::default(),
            batch_acks: Acks::NONE,
            own_acks: None,
            refused: 0,
            tally: Tally::default(),
        }
    }

    // Texts.

    /// The bytes of a text.
    pub(crate) fn bytes(&self, text: Text) -> &[u8] {
        bytes(&self.names, &self.scratch, &self.labels_text, &self.source, self.entry.as_ref(), text)
    }

    /// The text, if it is UTF-8.
    pub(crate) fn str(&self, text: Text) -> Option<&str> {
        std::str::from_utf8(self.bytes(text)).ok()
    }

    /// Copies a text.
    pub(crate) fn add(&mut self, bytes: &[u8]) -> Text {
        self.write(|out| out.extend_from_slice(bytes))
    }

    /// Keeps what the function appends. It must not touch what is there.
    pub(crate) fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Text {
        let start = self.scratch.len();
        write(&mut self.scratch);
        written(&mut self.scratch, 0, start)
    }

    /// Reads a text, and makes others of it meanwhile.
    pub(crate) fn read<R>(&mut self, text: Text, read: impl FnOnce(&[u8], &mut Tools<'_>) -> R) -> R {
        let Work { names, source, entry, scratch, fresh, labels_text, found, groups, lossy, json, .. } = self;
        if text.place != SCRATCH {
            let bytes = bytes(names, &[], labels_text, source, entry.as_ref(), text);
            return read(bytes, &mut Tools { out: scratch, base: 0, found, names, groups, lossy, scratch: json });
        }
        fresh.clear();
        let bytes = scratch.get(text.range()).unwrap_or_default();
        let base = scratch.len();
        let answer = read(bytes, &mut Tools { out: fresh, base, found, names, groups, lossy, scratch: json });
        scratch.extend_from_slice(fresh);
        answer
    }

    // The entry.

    /// The line. It need not be UTF-8.
    pub(crate) fn line(&self) -> Text {
        self.line
    }

    /// Sets the line.
    pub(crate) fn set_line(&mut self, line: Text) {
        self.line = line;
    }

    /// The time, in nanoseconds since the Unix epoch.
    pub(crate) fn timestamp_ns(&self) -> i64 {
        self.timestamp_ns
    }

    /// Sets the time, in nanoseconds since the Unix epoch.
    pub(crate) fn set_timestamp_ns(&mut self, timestamp_ns: i64) {
        self.timestamp_ns = timestamp_ns;
    }

    /// The structured metadata, as (name, value), in order.
    pub(crate) fn metadata(&self) -> &[(Text, Text)] {
        &self.metadata
    }

    /// The structured metadata, to change it.
    pub(crate) fn metadata_mut(&mut self) -> &mut Vec<(Text, Text)> {
        &mut self.metadata
    }

    // The labels.

    /// The value of a label.
    pub(crate) fn label(&self, name: &str) -> Option<&str> {
        match self.edits.iter().find(|edit| self.bytes(edit.name) == name.as_bytes()) {
            Some(edit) => self.str(edit.value?),
            None => self.stream.labels().get(name),
        }
    }

    /// Sets a label; empty values count. Does nothing and says so if the name or the value is not UTF-8, or if the name is
    /// empty.
    pub(crate) fn set_label(&mut self, name: Text, value: Text) -> bool {
        let valid = |text: Text| self.str(text).is_some();
        if name.is_empty() || !valid(name) || !valid(value) {
            return false;
        }
        self.edit(Edit { name, value: Some(value) });
        true
    }

    /// Removes a label.
    pub(crate) fn remove_label(&mut self, name: Text) {
        self.edit(Edit { name, value: None });
    }

    /// Keeps the labels for which the function says so.
    pub(crate) fn retain_labels(&mut self, keep: impl Fn(&str) -> bool) {
        let stream = self.stream();
        for (name, _) in stream.labels().iter().filter(|(name, _)| !keep(name)) {
            let name = self.add(name.as_bytes());
            self.edits.push(Edit { name, value: None });
        }
    }

    fn edit(&mut self, edit: Edit) {
        let name = self.bytes(edit.name);
        match self.edits.iter().position(|known| known.name == edit.name || self.bytes(known.name) == name) {
            Some(at) => self.edits[at] = edit,
            None => self.edits.push(edit),
        }
    }

    /// The label set as it is now: what entries that belong together have in common. Costs a look-up.
    pub(crate) fn stream(&mut self) -> Stream {
        if !self.edits.is_empty() {
            self.apply_edits();
        }
        self.stream.clone()
    }

    fn apply_edits(&mut self) {
        let mut key = std::mem::take(&mut self.cache_key);
        key.clear();
        // All of the labels: their own hash has no seed, and whoever sends logs could look for two sets that share it.
        let before = self.stream.labels().as_encoded();
        key.extend_from_slice(&(before.len() as u64).to_le_bytes());
        key.extend_from_slice(before);
        for edit in &self.edits {
            for text in [Some(edit.name), edit.value] {
                key.extend_from_slice(&text.map_or(u32::MAX, |text| text.len).to_le_bytes());
                key.extend_from_slice(self.bytes(text.unwrap_or(Text::EMPTY)));
            }
        }
        let Work { names, source, entry, scratch, labels_text, stream, edits, builder, cache, .. } = self;
        let text = |text| {
            let bytes = bytes(names, scratch, labels_text, source, entry.as_ref(), text);
            std::str::from_utf8(bytes).unwrap_or_default()
        };
        let made = cache.get_or_make(&key, || {
            builder.clear();
            builder.extend_from(stream.labels());
            for edit in edits.iter() {
                builder.remove(text(edit.name));
                if let Some(value) = edit.value {
                    builder.push(text(edit.name), text(value));
                }
            }
            Stream::new(builder)
        });
        self.edits.clear();
        match made {
            Ok(made) => self.stream = made,
            Err(_) => self.refused += 1,
        }
        key.shrink_to(KEPT_BYTES_MAX);
        self.cache_key = key;
    }

    // The extracted map.

    /// A value.
    pub(crate) fn value(&self, slot: Slot) -> Value {
        match self.cells.get(slot.0 as usize) {
            Some(Cell::Set(value)) => *value,
            Some(Cell::Untouched) => {
                self.labels_by_slot.get(slot.0 as usize).copied().flatten().map_or(Value::Absent, Value::Text)
            }
            None => Value::Absent,
        }
    }

    /// Stores a value. [`Value::Absent`] removes the name.
    pub(crate) fn set_value(&mut self, slot: Slot, value: Value) {
        if let Some(cell) = self.cells.get_mut(slot.0 as usize) {
            *cell = Cell::Set(value);
        }
    }

    /// Stores a value for a name that may be known only now. Nothing is stored if no stage can read it: see
    /// [`Compile::need_all_values`](super::stage::Compile::need_all_values).
    pub(crate) fn set_value_named(&mut self, name: Text, value: Value) {
        match self.names.find(self.bytes(name)) {
            Some(slot) => self.set_value(slot, value),
            None if self.names.keeps_all() => match self.find_extra(self.bytes(name)) {
                Some(at) => self.extra[at].1 = value,
                None => {
                    self.extra.push((name, value));
                    self.index_extra();
                }
            },
            None => {}
        }
    }

    /// A value by its name, as far as values of such names are kept.
    pub(crate) fn value_named(&self, name: &[u8]) -> Value {
        match self.names.find(name) {
            Some(slot) => self.value(slot),
            None => {
                let extra = self.find_extra(name).map(|at| self.extra[at].1);
                let label = || self.labels_besides.iter().find(|(known, _)| self.bytes(*known) == name);
                extra.or_else(|| label().map(|(_, value)| Value::Text(*value))).unwrap_or_default()
            }
        }
    }

    /// Whether the map has a name, as far as such names are kept; it may be without a value.
    pub(crate) fn has_named(&self, name: &[u8]) -> bool {
        self.value_named(name).is_present()
    }

    /// Calls the function with every name of the map and its value, in no order. All are there only in pipelines where
    /// [`Compile::need_all_values`](super::stage::Compile::need_all_values) was called.
    pub(crate) fn for_each_value(&self, mut call: impl FnMut(&[u8], Shown<'_>)) {
        for (slot, name) in self.names.iter() {
            match self.value(slot) {
                Value::Absent => {}
                value => call(name, self.shown(value)),
            }
        }
        for (name, value) in self.extra.iter().filter(|(_, value)| value.is_present()) {
            call(self.bytes(*name), self.shown(*value));
        }
        for (name, value) in &self.labels_besides {
            let name = self.bytes(*name);
            if self.find_extra(name).is_none() {
                call(name, Shown::Text(self.bytes(*value)));
            }
        }
    }

    fn find_extra(&self, name: &[u8]) -> Option<usize> {
        let is_it = |at: usize| self.bytes(self.extra[at].0) == name;
        if self.extra.len() <= LINEAR_NAMES_MAX {
            return (0..self.extra.len()).find(|at| is_it(*at));
        }
        let found = self.extra_index.find(self.hasher.hash_one(name), |at| is_it(*at as usize));
        found.map(|at| *at as usize)
    }

    /// Puts what is not there yet into the index of extra names, once there are many.
    fn index_extra(&mut self) {
        if self.extra.len() <= LINEAR_NAMES_MAX {
            return;
        }
        let mut index = std::mem::take(&mut self.extra_index);
        let hash = |at: &u32| self.hasher.hash_one(self.bytes(self.extra[*at as usize].0));
        for at in index.len() as u32..self.extra.len() as u32 {
            index.insert_unique(hash(&at), at, hash);
        }
        self.extra_index = index;
    }

    fn shown(&self, value: Value) -> Shown<'_> {
        match value {
            Value::Text(text) => Shown::Text(self.bytes(text)),
            other => Shown::Other(other),
        }
    }

    /// The string of a value, as the reference prints it: numbers without exponent. Nothing for one that is absent, or that
    /// has no string.
    pub(crate) fn text_of(&mut self, value: Value) -> Option<Text> {
        match value {
            Value::Text(text) => Some(text),
            Value::Absent | Value::Nil | Value::Opaque => None,
            other => Some(self.write(|out| write_plain(out, other))),
        }
    }

    /// Stores what was [found](Tools::find).
    pub(crate) fn keep_found(&mut self) {
        let mut found = std::mem::take(&mut self.found);
        for (key, value) in found.drain(..) {
            match key {
                Key::Slot(slot) => self.set_value(slot, value),
                Key::Name(name) => self.set_value_named(name, value),
            }
        }
        self.found = found;
    }

    /// Forgets what was [found](Tools::find).
    pub(crate) fn forget_found(&mut self) {
        self.found.clear();
    }

    /// Copies the labels, as they are now, into the extracted map: `stage.match` does, before its own stages run.
    pub(super) fn extract_labels(&mut self) {
        let stream = self.stream();
        for (name, value) in stream.labels().iter() {
            match self.names.find(name.as_bytes()) {
                Some(slot) => {
                    let value = self.add(value.as_bytes());
                    self.set_value(slot, Value::Text(value));
                }
                None if self.names.keeps_all() => {
                    let (name, value) = (self.add(name.as_bytes()), self.add(value.as_bytes()));
                    self.set_value_named(name, Value::Text(value));
                }
                None => {}
            }
        }
    }

    // Entries that wait.

    /// Takes the entry as it is, for a stage that holds it; then the stage answers [`Next::Held`](super::stage::Next). Its
    /// source is told that it waits.
    pub(crate) fn hold(&mut self) -> Held {
        self.tally.held += 1;
        let acks = self.take_acks();
        acks.hold();
        self.make_held(Some(acks))
    }

    /// As [`hold`](Self::hold), in place of an entry that waited already, whose line the stage joins: what becomes of this
    /// entry becomes of that one.
    pub(crate) fn hold_with(&mut self, mut before: Held, stage: &'static str) -> Held {
        self.tally.merged(stage);
        let mut acks = self.take_acks();
        acks.hold();
        if let Some(other) = before.acks.take() {
            acks.join(other);
        }
        self.make_held(Some(acks))
    }

    /// An entry that a stage held becomes a part of this one: what becomes of this entry becomes of that one. The line is
    /// joined by the stage itself.
    pub(crate) fn absorb(&mut self, mut held: Held, stage: &'static str) {
        self.tally.held -= 1;
        self.tally.merged(stage);
        if let Some(other) = held.acks.take() {
            let mut acks = self.take_acks();
            acks.join(other);
            self.own_acks = Some(acks);
        }
    }

    /// A further entry that is like this one, to be [emitted](Emit::emit_new) at once.
    pub(crate) fn copy(&mut self) -> Held {
        let acks = self.own_acks.clone();
        self.make_held(acks)
    }

    /// The entry itself, while others pass that a stage emitted.
    pub(super) fn set_aside(&mut self) -> Held {
        let acks = self.own_acks.take();
        self.make_held(acks)
    }

    /// A share of the acks of the batch.
    pub(super) fn batch_acks(&self) -> Acks {
        self.batch_acks.clone()
    }

    /// The acks of an entry that goes elsewhere than the rest of its batch.
    fn take_acks(&mut self) -> Acks {
        self.own_acks.take().unwrap_or_else(|| self.batch_acks.clone())
    }

    fn make_held(&mut self, acks: Option<Acks>) -> Held {
        let stream = self.stream();
        let mut text = Vec::new();
        let names = Arc::clone(&self.names);
        let mut carry = |from: Text| {
            if from.place == CONSTANTS {
                return from;
            }
            let bytes = self.bytes(from);
            text.extend_from_slice(bytes);
            Text::new(SCRATCH, text.len() - bytes.len(), bytes.len())
        };
        let mut carry_value = |value: Value| match value {
            Value::Text(text) => Value::Text(carry(text)),
            other => other,
        };
        let cells = names
            .iter()
            .map(|(slot, _)| match (self.cells.get(slot.0 as usize), self.value(slot)) {
                (Some(Cell::Set(_)), value) => Cell::Set(carry_value(value)),
                (_, Value::Absent) => Cell::Untouched,
                (_, value) => Cell::Set(carry_value(value)),
            })
            .collect();
        let mut extra: Vec<(Text, Value)> = Vec::new();
        for (name, value) in &self.extra {
            extra.push((
                carry(*name),
                match value {
                    Value::Text(text) => Value::Text(carry(*text)),
                    other => *other,
                },
            ));
        }
        let metadata = self.metadata.iter().map(|(name, value)| (carry(*name), carry(*value))).collect();
        Held {
            line: self.bytes(self.line).to_vec(),
            timestamp_ns: self.timestamp_ns,
            stream,
            metadata,
            text,
            cells,
            extra,
            labels: self.labels.clone(),
            acks,
        }
    }

    /// Goes on with an entry that waited.
    pub(super) fn load_held(&mut self, held: Held) {
        self.reset();
        self.entry = None;
        self.own_acks = held.acks;
        self.scratch = held.text;
        self.line = self.write(|out| out.extend_from_slice(&held.line));
        self.timestamp_ns = held.timestamp_ns;
        self.stream = held.stream;
        self.metadata = held.metadata;
        self.cells = held.cells;
        self.extra = held.extra;
        self.index_extra();
        // What the labels gave to slots is among the values.
        self.begin_stream(&held.labels);
        self.labels_by_slot.fill(None);
    }

    // The driver's part.

    /// Begins with a batch.
    pub(super) fn begin(&mut self, source: Arc<Entries>, acks: Acks) {
        self.source = source;
        self.batch_acks = acks;
    }

    /// Begins with the entries of a stream.
    pub(super) fn begin_stream(&mut self, stream: &Stream) {
        self.labels = stream.clone();
        self.labels_text.clear();
        self.labels_by_slot.fill(None);
        self.labels_besides.clear();
        let text = &mut self.labels_text;
        let mut add = |bytes: &str| {
            text.extend_from_slice(bytes.as_bytes());
            Text::new(LABELS, text.len() - bytes.len(), bytes.len())
        };
        for (name, value) in stream.labels().iter() {
            let value = add(value);
            match self.names.find(name.as_bytes()) {
                Some(slot) => self.labels_by_slot[slot.0 as usize] = Some(value),
                None => self.labels_besides.push((add(name), value)),
            }
        }
    }

    /// Whether the extracted map begins with the labels of this stream.
    pub(super) fn is_at(&self, stream: &Stream) -> bool {
        self.labels.same(stream) && self.entry.is_some()
    }

    /// Begins with an entry of the stream.
    pub(super) fn load(&mut self, stream: &Stream, entry: &Entry) {
        self.reset();
        self.stream = stream.clone();
        self.entry = Some(*entry);
        self.line = Text::new(LINE, 0, entry.line.len());
        self.timestamp_ns = entry.timestamp_ns;
        if entry.has_metadata() {
            for (at, (name, value)) in self.source.metadata_spans(entry).iter().enumerate() {
                let place = METADATA + 2 * at as u32;
                self.metadata.push((Text::new(place, 0, name.len()), Text::new(place + 1, 0, value.len())));
            }
        }
    }

    fn reset(&mut self) {
        self.edits.clear();
        self.metadata.clear();
        self.extra.clear();
        self.extra_index.clear();
        self.found.clear();
        self.own_acks = None;
        self.cells.fill(Cell::Untouched);
        self.scratch.clear();
        for buffer in [&mut self.scratch, &mut self.fresh] {
            if buffer.capacity() > KEPT_BYTES_MAX {
                buffer.clear();
                buffer.shrink_to(KEPT_BYTES_MAX);
            }
        }
    }

    /// Puts the entry where it goes.
    pub(super) fn finish(&mut self, out: &mut EntriesBuilder, sharing: &Sharing, acks: &mut Acks) {
        if let Some(own) = self.own_acks.take() {
            acks.join(own);
        }
        if !self.edits.is_empty() {
            self.apply_edits();
        }
        let part = out.stream(&self.stream);
        let line = self.carry(self.line, out, sharing);
        out.push(part, self.timestamp_ns, line);
        for (name, value) in &self.metadata {
            let (name, value) = (self.carry(*name, out, sharing), self.carry(*value, out, sharing));
            out.push_metadata(name, value);
        }
    }

    /// Where a text stands that goes out: in its old place if it is a whole text of the entry that came in.
    fn carry(&self, text: Text, out: &mut EntriesBuilder, sharing: &Sharing) -> corten_signal::logs::Span {
        if let Some(entry) = &self.entry {
            let span = match text.place {
                LINE => Some(entry.line),
                METADATA.. => span_of_metadata(&self.source, entry, text.place),
                _ => None,
            };
            if let Some(span) = span.filter(|span| span.len() == text.len()) {
                return out.carry(&self.source, sharing, span);
            }
        }
        out.own(self.bytes(text))
    }

    /// The entry is dropped on purpose.
    pub(super) fn drop_entry(&mut self) {
        if let Some(own) = self.own_acks.take() {
            own.safe();
        }
    }

    /// Ends a batch: its acks, and how many label sets were refused as too large.
    pub(super) fn end(&mut self) -> (Acks, u64) {
        self.source = Arc::default();
        self.entry = None;
        (std::mem::take(&mut self.batch_acks), std::mem::take(&mut self.refused))
    }
}

/// How much may be written for an entry, in bytes. Beyond that texts are empty.
const SCRATCH_BYTES_MAX: usize = 1 << 30;

/// What was written from a place on, in a buffer that stands behind `base` bytes.
fn written(out: &mut Vec<u8>, base: usize, start: usize) -> Text {
    if base + out.len() > SCRATCH_BYTES_MAX {
        out.truncate(start);
        return Text::EMPTY;
    }
    Text::new(SCRATCH, base + start, out.len() - start)
}

fn span_of_metadata(source: &Entries, entry: &Entry, place: u32) -> Option<corten_signal::logs::Span> {
    let at = (place - METADATA) as usize;
    let (name, value) = source.metadata_spans(entry).get(at / 2)?;
    Some(if at.is_multiple_of(2) { *name } else { *value })
}

fn bytes<'a>(
    names: &'a Names,
    scratch: &'a [u8],
    labels_text: &'a [u8],
    source: &'a Entries,
    entry: Option<&Entry>,
    text: Text,
) -> &'a [u8] {
    let whole = match (text.place, entry) {
        (CONSTANTS, _) => return names.bytes(text),
        (SCRATCH, _) => scratch,
        (LABELS, _) => labels_text,
        (LINE, Some(entry)) => source.line(entry),
        (_, Some(entry)) => span_of_metadata(source, entry, text.place).map_or(&[][..], |span| source.bytes(span)),
        (_, None) => &[],
    };
    whole.get(text.range()).unwrap_or_default()
}

/// What [`Work::for_each_value`] shows of a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Shown<'a> {
    /// A text.
    Text(&'a [u8]),
    /// Any other value.
    Other(Value),
}

/// Writes a number or bool as the reference prints it.
pub(crate) fn write_plain(out: &mut Vec<u8>, value: Value) {
    use std::io::Write as _;
    // Writing to memory does not fail. Rust prints the shortest decimals without an exponent, as is wanted here.
    let _ = match value {
        Value::Bool(value) => write!(out, "{value}"),
        Value::Float(value) if value.is_infinite() => write!(out, "{}Inf", if value > 0.0 { "+" } else { "-" }),
        Value::Float(value) => write!(out, "{value}"),
        Value::Uint(value) => write!(out, "{value}"),
        Value::Absent | Value::Nil | Value::Text(_) | Value::Opaque => Ok(()),
    };
}

/// An entry that a stage keeps, or that goes on by itself.
///
/// Dropped before it was emitted, its source learns that it is lost, and sends it again: what a stage drops on purpose
/// it [discards](Held::discard).
pub(crate) struct Held {
    /// Its line.
    pub(crate) line: Vec<u8>,
    /// Its time, in nanoseconds since the Unix epoch.
    pub(crate) timestamp_ns: i64,
    stream: Stream,
    metadata: Vec<(Text, Text)>,
    /// What the texts are places in.
    text: Vec<u8>,
    cells: Vec<Cell>,
    extra: Vec<(Text, Value)>,
    labels: Stream,
    /// Nothing: those of the batch that is under way.
    acks: Option<Acks>,
}

impl Held {
    /// How much memory it takes, in bytes, about.
    pub(crate) fn bytes(&self) -> usize {
        let pairs =
            self.metadata.capacity() * size_of::<(Text, Text)>() + self.extra.capacity() * size_of::<(Text, Value)>();
        let cells = self.cells.capacity() * size_of::<Cell>();
        self.line.capacity() + self.text.capacity() + pairs + cells + size_of::<Held>()
    }

    /// How much memory its label sets take, in bytes: entries of one stream share them.
    pub(crate) fn labels_bytes(&self) -> usize {
        let before = if self.labels.same(&self.stream) { 0 } else { self.labels.labels().as_encoded().len() };
        self.stream.labels().as_encoded().len() + before
    }

    /// Another entry becomes a part of this one, and its stage answers [`Next::Held`](super::stage::Next): what becomes of
    /// this entry becomes of that one. The line is joined by the stage itself.
    pub(crate) fn join(&mut self, work: &mut Work, stage: &'static str) {
        work.tally.merged(stage);
        self.take_acks(work);
    }

    /// As [`join`](Self::join), where all of this one went on [before](Self::split): it is kept for the other entry now.
    pub(crate) fn begin_again(&mut self, work: &mut Work) {
        work.tally.held += 1;
        self.take_acks(work);
    }

    fn take_acks(&mut self, work: &mut Work) {
        let acks = work.take_acks();
        acks.hold();
        match &mut self.acks {
            Some(known) => known.join(acks),
            None => self.acks = Some(acks),
        }
    }

    /// The entry goes on, and another goes on later that is like it in all but the line: the block that a stage cut in two.
    /// Both have to be safe.
    pub(crate) fn split(&self, line: Vec<u8>) -> Held {
        Held {
            line,
            timestamp_ns: self.timestamp_ns,
            stream: self.stream.clone(),
            metadata: self.metadata.clone(),
            text: self.text.clone(),
            cells: self.cells.clone(),
            extra: self.extra.clone(),
            labels: self.labels.clone(),
            acks: self.acks.clone(),
        }
    }

    /// The entry waits no longer for what it was made of: from now on it has nobody to tell. For the entry that a stage
    /// keeps as a pattern for later ones, after it emitted the [rest](Held::split).
    pub(crate) fn settle(&mut self) {
        if let Some(acks) = self.acks.replace(Acks::NONE) {
            acks.safe();
        }
    }

    /// Ends the entry here, on purpose.
    pub(crate) fn discard(mut self) {
        self.settle();
    }
}

/// Takes the entries that a stage emits.
#[derive(Default)]
pub(crate) struct Emit {
    pub(super) list: Vec<Held>,
    /// How many of them a stage had kept.
    pub(super) released: usize,
    /// How many of them are further ones.
    pub(super) created: usize,
}

impl Emit {
    /// Emits an entry that was kept: it goes on at the stage behind this one. Several go on in the order in which they were
    /// emitted.
    pub(crate) fn emit(&mut self, held: Held) {
        self.released += 1;
        self.list.push(held);
    }

    /// As [`emit`](Self::emit), of a [further](Work::copy) entry.
    pub(crate) fn emit_new(&mut self, held: Held) {
        self.created += 1;
        self.list.push(held);
    }
}
