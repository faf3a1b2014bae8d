//! Entries: times and places in shared buffers.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use hashbrown::HashTable;

use super::stream::Stream;

/// How many entries a batch should hold at most. A builder says that it is full from there on.
pub const ENTRIES_MAX: usize = 256 << 10;
/// How much text of its own a builder should hold at most, in bytes. It says that it is full from there on.
pub const TEXT_BYTES_MAX: usize = 64 << 20;
/// The longest buffer, in bytes: a place in it has 30 bits.
pub const BUFFER_BYTES_MAX: usize = 1 << 30;

const PLACE_BITS: u32 = 30;
/// How many buffers a batch has: a place says in two bits which one it is in.
const BUFFERS: usize = 4;
/// The buffer that a builder writes itself.
const OWN: BufferId = BufferId(BUFFERS as u8 - 1);

/// Which buffer of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferId(u8);

/// A place in the buffers of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    at: u32,
    len: u32,
}

impl Span {
    fn new(buffer: BufferId, start: usize, len: usize) -> Self {
        Span { at: u32::from(buffer.0) << PLACE_BITS | start as u32, len: len as u32 }
    }

    fn buffer(self) -> usize {
        (self.at >> PLACE_BITS) as usize
    }

    fn range(self) -> Range<usize> {
        let start = (self.at & ((1 << PLACE_BITS) - 1)) as usize;
        start..start + self.len as usize
    }

    /// How long the text is, in bytes.
    pub fn len(self) -> usize {
        self.len as usize
    }

    /// Whether the text is empty.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }
}

/// The buffers of a batch. A copy costs a few counters.
#[derive(Clone, Default)]
pub struct Text([Bytes; BUFFERS]);

impl Text {
    fn get(&self, span: Span) -> &[u8] {
        self.0[span.buffer()].get(span.range()).unwrap_or_default()
    }

    fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(Bytes::len)).finish()
    }
}

/// A line with its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The time, in nanoseconds since the Unix epoch.
    pub timestamp_ns: i64,
    /// The line. It need not be UTF-8.
    pub line: Span,
    metadata_at: u32,
    metadata_len: u32,
}

impl Entry {
    /// Whether the entry has structured metadata.
    pub fn has_metadata(&self) -> bool {
        self.metadata_len > 0
    }
}

/// Entries of one stream, in the order of their arrival.
#[derive(Clone, Debug)]
struct Part {
    stream: Stream,
    range: Range<u32>,
}

/// Entries by their streams. Immutable.
#[derive(Clone, Default)]
pub struct Entries {
    text: Text,
    list: Vec<Entry>,
    parts: Vec<Part>,
    metadata: Vec<(Span, Span)>,
    line_bytes: usize,
    created_ms: i64,
}

impl Entries {
    /// The streams and their entries, each in the order of arrival.
    pub fn parts(&self) -> impl ExactSizeIterator<Item = (&Stream, &[Entry])> {
        self.parts.iter().map(|part| (&part.stream, &self.list[part.range.start as usize..part.range.end as usize]))
    }

    /// The text at a place.
    pub fn bytes(&self, span: Span) -> &[u8] {
        self.text.get(span)
    }

    /// The line of an entry.
    pub fn line(&self, entry: &Entry) -> &[u8] {
        self.text.get(entry.line)
    }

    /// The structured metadata of an entry, as (name, value), in the order in which it was given.
    pub fn metadata(&self, entry: &Entry) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        self.metadata_spans(entry).iter().map(|(name, value)| (self.text.get(*name), self.text.get(*value)))
    }

    /// As [`metadata`](Self::metadata), as places.
    pub fn metadata_spans(&self, entry: &Entry) -> &[(Span, Span)] {
        let start = entry.metadata_at as usize;
        self.metadata.get(start..start + entry.metadata_len as usize).unwrap_or_default()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// What an entry counts for limits: its line and its structured metadata as they are written, without labels.
    pub fn size(&self, entry: &Entry) -> usize {
        let field = |len: usize| 1 + crate::labels::varint_len(len as u64) + len;
        let pair = |(name, value): (&[u8], &[u8])| {
            [name.len(), value.len()].into_iter().filter(|len| *len > 0).map(field).sum::<usize>()
        };
        entry.line.len() + self.metadata(entry).map(pair).sum::<usize>()
    }

    /// How many bytes the lines have.
    pub fn line_bytes(&self) -> usize {
        self.line_bytes
    }

    /// When the source made the batch, in milliseconds since the Unix epoch; 0 if it does not say.
    pub fn created_ms(&self) -> i64 {
        self.created_ms
    }

    /// The buffers.
    pub fn text(&self) -> &Text {
        &self.text
    }

    /// How much memory the batch keeps, in bytes.
    pub fn held_bytes(&self) -> usize {
        self.text.len()
            + self.list.capacity() * size_of::<Entry>()
            + self.parts.capacity() * size_of::<Part>()
            + self.metadata.capacity() * size_of::<(Span, Span)>()
    }
}

impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        for (stream, entries) in self.parts() {
            for entry in entries {
                let metadata: Vec<_> = self.metadata(entry).map(|(n, v)| (lossy(n), lossy(v))).collect();
                list.entry(&(stream, entry.timestamp_ns, lossy(self.line(entry)), metadata));
            }
        }
        list.finish()
    }
}

fn lossy(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// Which entries of a builder belong together: those of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartId(u32);

/// Where the buffers of another batch stand in a builder.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sharing([Option<BufferId>; BUFFERS]);

/// Beyond so many streams the builder looks them up by their hashes.
const LINEAR_STREAMS_MAX: usize = 8;

/// Collects entries. Reused from batch to batch.
#[derive(Debug, Default)]
pub struct EntriesBuilder {
    shared: [Bytes; BUFFERS - 1],
    shared_len: usize,
    own: Vec<u8>,
    list: Vec<Entry>,
    /// The part of each entry.
    part_of: Vec<u32>,
    streams: Vec<Stream>,
    /// The places of streams, by their hashes, where there are many.
    by_hash: HashTable<u32>,
    metadata: Vec<(Span, Span)>,
    line_bytes: usize,
    /// Whether the entries do not stand in the order of their parts.
    mixed: bool,
    cut: u64,
}

impl EntriesBuilder {
    /// A builder of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a buffer whose text entries may refer to; nothing if there are too many already, or it is too long.
    pub fn share(&mut self, buffer: &Bytes) -> Option<BufferId> {
        if buffer.len() > BUFFER_BYTES_MAX {
            return None;
        }
        let known = self.shared[..self.shared_len].iter().position(|known| is_same(known, buffer));
        let at = known.or_else(|| {
            let slot = self.shared.get_mut(self.shared_len)?;
            *slot = buffer.clone();
            self.shared_len += 1;
            Some(self.shared_len - 1)
        });
        at.map(|at| BufferId(at as u8))
    }

    /// Takes the buffers of another batch, as far as there is room.
    pub fn share_text(&mut self, text: &Text) -> Sharing {
        let mut sharing = Sharing::default();
        for (buffer, place) in text.0.iter().zip(&mut sharing.0) {
            if !buffer.is_empty() {
                *place = self.share(buffer);
            }
        }
        sharing
    }

    /// A place in a buffer that was taken.
    pub fn span(&self, buffer: BufferId, range: Range<usize>) -> Span {
        Span::new(buffer, range.start, range.len())
    }

    /// Copies a text. What does not fit into [`BUFFER_BYTES_MAX`] any more is cut off: see [`is_full`](Self::is_full) and
    /// [`cut_bytes`](Self::cut_bytes).
    pub fn own(&mut self, bytes: &[u8]) -> Span {
        let start = self.own.len();
        let len = bytes.len().min(BUFFER_BYTES_MAX - start);
        self.cut += (bytes.len() - len) as u64;
        self.own.extend_from_slice(&bytes[..len]);
        Span::new(OWN, start, len)
    }

    /// How many bytes were cut off because nobody asked whether the builder is full.
    pub fn cut_bytes(&self) -> u64 {
        self.cut
    }

    /// The place of a text of another batch: where it is, if its buffer was taken, else of a copy.
    pub fn carry(&mut self, from: &Entries, sharing: &Sharing, span: Span) -> Span {
        if span.is_empty() {
            return Span::default();
        }
        match sharing.0[span.buffer()] {
            Some(buffer) => Span::new(buffer, span.range().start, span.len()),
            None => self.own(from.bytes(span)),
        }
    }

    /// The text at a place.
    pub fn bytes(&self, span: Span) -> &[u8] {
        match self.shared.get(span.buffer()) {
            Some(buffer) => buffer.get(span.range()),
            None => self.own.get(span.range()),
        }
        .unwrap_or_default()
    }

    /// The part for entries of a stream.
    pub fn stream(&mut self, stream: &Stream) -> PartId {
        if let Some(last) = self.streams.last()
            && last.same(stream)
        {
            return PartId(self.streams.len() as u32 - 1);
        }
        if self.streams.len() <= LINEAR_STREAMS_MAX {
            if let Some(at) = self.streams.iter().position(|known| known == stream) {
                return PartId(at as u32);
            }
        } else {
            let found = self.by_hash.find(stream.hash64(), |at| self.streams[*at as usize] == *stream);
            if let Some(at) = found {
                return PartId(*at);
            }
        }
        let at = self.streams.len() as u32;
        self.streams.push(stream.clone());
        let Self { by_hash, streams, .. } = self;
        by_hash.insert_unique(stream.hash64(), at, |at| streams[*at as usize].hash64());
        PartId(at)
    }

    /// Adds an entry.
    pub fn push(&mut self, part: PartId, timestamp_ns: i64, line: Span) {
        self.mixed |= self.part_of.last().is_some_and(|last| *last > part.0);
        self.part_of.push(part.0);
        self.line_bytes += line.len();
        let metadata_at = self.metadata.len() as u32;
        self.list.push(Entry { timestamp_ns, line, metadata_at, metadata_len: 0 });
    }

    /// Adds structured metadata to the entry that was added last.
    pub fn push_metadata(&mut self, name: Span, value: Span) {
        if let Some(last) = self.list.last_mut() {
            self.metadata.push((name, value));
            last.metadata_len += 1;
        }
    }

    /// Adds an entry of another batch as it is.
    pub fn push_entry(&mut self, part: PartId, from: &Entries, sharing: &Sharing, entry: &Entry) {
        let line = self.carry(from, sharing, entry.line);
        self.push(part, entry.timestamp_ns, line);
        for (name, value) in from.metadata_spans(entry) {
            let (name, value) = (self.carry(from, sharing, *name), self.carry(from, sharing, *value));
            self.push_metadata(name, value);
        }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many streams there are.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// How much text was copied, in bytes.
    pub fn own_bytes(&self) -> usize {
        self.own.len()
    }

    /// Whether the batch is large enough to be handed on.
    pub fn is_full(&self) -> bool {
        self.list.len() >= ENTRIES_MAX || self.own.len() >= TEXT_BYTES_MAX
    }

    /// The batch; the builder is empty afterwards. `created_ms` is when its source made it, in milliseconds since the
    /// Unix epoch.
    pub fn finish(&mut self, created_ms: i64) -> Entries {
        let mut list = Vec::with_capacity(self.list.len());
        let mut parts: Vec<Part> = Vec::with_capacity(self.streams.len());
        // Where the entries of each stream begin, and then where its next one goes.
        let mut places = vec![0u32; self.streams.len() + 1];
        for part in &self.part_of {
            places[*part as usize + 1] += 1;
        }
        for at in 1..places.len() {
            places[at] += places[at - 1];
        }
        for (stream, range) in self.streams.drain(..).zip(places.windows(2)) {
            if range[0] < range[1] {
                parts.push(Part { stream, range: range[0]..range[1] });
            }
        }
        if self.mixed {
            list.extend_from_slice(&self.list);
            for (entry, part) in self.list.iter().zip(&self.part_of) {
                let place = &mut places[*part as usize];
                list[*place as usize] = *entry;
                *place += 1;
            }
        } else {
            list.extend_from_slice(&self.list);
        }
        let mut buffers: [Bytes; BUFFERS] = Default::default();
        for (buffer, shared) in buffers.iter_mut().zip(&mut self.shared) {
            *buffer = std::mem::take(shared);
        }
        if !self.own.is_empty() {
            // A copy of the right size: what the builder grew to stays with it.
            buffers[usize::from(OWN.0)] = Bytes::copy_from_slice(&self.own);
        }
        let entries = Entries {
            text: Text(buffers),
            list,
            parts,
            metadata: self.metadata.as_slice().into(),
            line_bytes: self.line_bytes,
            created_ms,
        };
        self.clear();
        entries
    }

    /// Forgets all entries.
    pub fn clear(&mut self) {
        self.shared = Default::default();
        self.shared_len = 0;
        self.own.clear();
        self.own.shrink_to(KEPT_BYTES_MAX);
        self.list.clear();
        self.part_of.clear();
        self.streams.clear();
        self.by_hash.clear();
        self.metadata.clear();
        self.line_bytes = 0;
        self.mixed = false;
        self.cut = 0;
    }
}

/// How much room a builder keeps for the text of the next batch, in bytes.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// Whether it is the very same text.
fn is_same(a: &Bytes, b: &Bytes) -> bool {
    a.as_ptr() == b.as_ptr() && a.len() == b.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stream(name: &str) -> Stream {
        Stream::of([("app", name)]).unwrap()
    }

    /// The selector of the stream, the time, the line and the metadata.
    type Shown = (String, i64, String, Vec<(String, String)>);

    fn shown(entries: &Entries) -> Vec<Shown> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        entries
            .parts()
            .flat_map(|(stream, list)| {
                list.iter().map(move |entry| {
                    let metadata = entries.metadata(entry).map(|(n, v)| (text(n), text(v))).collect();
                    (stream.selector().to_owned(), entry.timestamp_ns, text(entries.line(entry)), metadata)
                })
            })
            .collect()
    }

    #[test]
    fn an_entry_takes_24_bytes() {
        assert_eq!(size_of::<Entry>(), 24);
    }

    #[test]
    fn entries_are_grouped_by_stream_in_the_order_of_arrival() {
        let buffer = Bytes::from_static(b"one\ntwo\nthree\n");
        let mut builder = EntriesBuilder::new();
        let shared = builder.share(&buffer).unwrap();
        let (a, b) = (builder.stream(&stream("a")), builder.stream(&stream("b")));
        builder.push(b, 1, builder.span(shared, 0..3));
        builder.push(a, 2, builder.span(shared, 4..7));
        let (name, value) = (builder.own(b"k"), builder.own(b"v"));
        builder.push_metadata(name, value);
        builder.push(b, 3, builder.span(shared, 8..13));
        assert_eq!(builder.stream(&stream("b")), b);
        let entries = builder.finish(0);
        let expected = [
            (r#"{app="a"}"#, 2, "two", vec![("k", "v")]),
            (r#"{app="b"}"#, 1, "one", vec![]),
            (r#"{app="b"}"#, 3, "three", vec![]),
        ];
        let expected = expected.map(|(s, t, l, m)| {
            (s.to_owned(), t, l.to_owned(), m.into_iter().map(|(n, v): (&str, &str)| (n.into(), v.into())).collect())
        });
        assert_eq!(shown(&entries), expected);
        assert!(builder.is_empty());
        let size = entries.parts().next().map(|(_, list)| entries.size(&list[0]));
        assert_eq!(size, Some(3 + 3 + 3));
    }

    #[test]
    fn buffers_of_another_batch_are_shared_as_long_as_there_is_room() {
        let mut builder = EntriesBuilder::new();
        let batches = ["a", "b", "c", "d", "e"].map(|text| {
            let part = builder.stream(&stream(text));
            let line = builder.own(text.as_bytes());
            builder.push(part, 0, line);
            builder.finish(0)
        });
        for batch in &batches {
            let sharing = builder.share_text(batch.text());
            for (stream, list) in batch.parts() {
                let part = builder.stream(stream);
                list.iter().for_each(|entry| builder.push_entry(part, batch, &sharing, entry));
            }
        }
        assert_eq!(builder.own_bytes(), 2);
        let entries = builder.finish(0);
        assert_eq!((entries.line_bytes(), builder.finish(0).line_bytes()), (5, 0));
        let lines: Vec<_> = shown(&entries).into_iter().map(|entry| entry.2).collect();
        assert_eq!(lines, ["a", "b", "c", "d", "e"]);
    }

    proptest! {
        #[test]
        fn what_was_pushed_is_there(pushed in proptest::collection::vec((0..20u32, any::<i64>(), "\\PC{0,9}", 0..3usize), 0..200)) {
            let mut builder = EntriesBuilder::new();
            let mut expected: std::collections::BTreeMap<u32, Vec<_>> = Default::default();
            let mut order = Vec::new();
            for (name, timestamp, line, metadata) in &pushed {
                let part = builder.stream(&stream(&name.to_string()));
                let span = builder.own(line.as_bytes());
                builder.push(part, *timestamp, span);
                let mut pairs = Vec::new();
                for at in 0..*metadata {
                    let (n, v) = (builder.own(at.to_string().as_bytes()), builder.own(line.as_bytes()));
                    builder.push_metadata(n, v);
                    pairs.push((at.to_string(), line.clone()));
                }
                if !order.contains(name) {
                    order.push(*name);
                }
                expected.entry(*name).or_default().push((format!("{{app=\"{name}\"}}"), *timestamp, line.clone(), pairs));
            }
            let expected: Vec<_> = order.iter().flat_map(|name| expected[name].clone()).collect();
            let entries = builder.finish(5);
            prop_assert_eq!(entries.len(), pushed.len());
            prop_assert_eq!(entries.line_bytes(), pushed.iter().map(|(_, _, line, _)| line.len()).sum::<usize>());
            prop_assert_eq!(shown(&entries), expected);
        }
    }
}
