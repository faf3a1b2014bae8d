//! Spans.

use crate::arena::{Arena, Map, Text};
use crate::data::{Output, Range, Record, Schema, Source, id_bytes};
use crate::proto::{BYTES, Back, FIXED32, FIXED64, Malformed, VARINT};
use crate::schema::TRACES;

/// An operation within a trace.
#[derive(Clone, Debug, Default)]
pub struct Span {
    /// The trace that it belongs to.
    pub trace_id: [u8; 16],
    /// Its own id.
    pub span_id: [u8; 8],
    /// The span within which it took place; zeros if there is none.
    pub parent_span_id: [u8; 8],
    /// The W3C trace state.
    pub trace_state: Text,
    /// What was done.
    pub name: Text,
    /// 1 internal, 2 server, 3 client, 4 producer, 5 consumer.
    pub kind: i32,
    /// When it began, in nanoseconds since the Unix epoch.
    pub start_time_ns: u64,
    /// When it ended, in nanoseconds since the Unix epoch.
    pub end_time_ns: u64,
    /// What else is known of it.
    pub attributes: Map,
    /// How many attributes its sender dropped.
    pub dropped_attributes: u32,
    /// What happened meanwhile.
    pub events: Vec<Event>,
    /// How many events its sender dropped.
    pub dropped_events: u32,
    /// Spans that it has to do with.
    pub links: Vec<Link>,
    /// How many links its sender dropped.
    pub dropped_links: u32,
    /// How it ended.
    pub status: Status,
    /// The lowest eight bits are the trace flags of W3C.
    pub flags: u32,
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// 0 unset, 1 ok, 2 error.
    pub code: i32,
    /// What went wrong.
    pub message: Text,
}

/// What happened during a span.
#[derive(Clone, Copy, Debug, Default)]
pub struct Event {
    /// When, in nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// What.
    pub name: Text,
    /// What else is known of it.
    pub attributes: Map,
    /// How many attributes its sender dropped.
    pub dropped_attributes: u32,
}

/// A span that another one has to do with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Link {
    /// The trace of the other span.
    pub trace_id: [u8; 16],
    /// The other span.
    pub span_id: [u8; 8],
    /// The W3C trace state of the other span.
    pub trace_state: Text,
    /// What is known of the link.
    pub attributes: Map,
    /// How many attributes its sender dropped.
    pub dropped_attributes: u32,
    /// The lowest eight bits are the trace flags of W3C.
    pub flags: u32,
}

const EVENTS: u32 = 11;
const LINKS: u32 = 13;

impl Record for Span {
    const SIGNAL: &'static str = "traces";
    const SCHEMA: Schema = Schema(&TRACES);

    fn items(&self) -> usize {
        1
    }

    fn read(from: &mut Source<'_>, message: Range) -> Result<Self, Malformed> {
        let mut span = Span::default();
        let mark = from.arena.pairs_mark();
        from.inner.clear();
        let mut reader = from.reader(message);
        while let Some((number, wire_type)) = reader.field()? {
            match (number, wire_type) {
                (1, BYTES) => span.trace_id = reader.id()?,
                (2, BYTES) => span.span_id = reader.id()?,
                (3, BYTES) => span.trace_state = from.text(reader.bytes()?),
                (4, BYTES) => span.parent_span_id = reader.id()?,
                (5, BYTES) => span.name = from.text(reader.bytes()?),
                (6, VARINT) => span.kind = reader.varint()? as i32,
                (7, FIXED64) => span.start_time_ns = reader.fixed64()?,
                (8, FIXED64) => span.end_time_ns = reader.fixed64()?,
                (9, BYTES) => from.pair(reader.message()?)?,
                (10, VARINT) => span.dropped_attributes = reader.varint()? as u32,
                (EVENTS | LINKS, BYTES) => from.inner.push((number, reader.bytes()?)),
                (12, VARINT) => span.dropped_events = reader.varint()? as u32,
                (14, VARINT) => span.dropped_links = reader.varint()? as u32,
                (15, BYTES) => {
                    let mut reader = reader.message()?;
                    span.status = Status::default();
                    while let Some((number, wire_type)) = reader.field()? {
                        match (number, wire_type) {
                            (2, BYTES) => span.status.message = from.text(reader.bytes()?),
                            (3, VARINT) => span.status.code = reader.varint()? as i32,
                            _ => reader.skip(wire_type)?,
                        }
                    }
                }
                (16, FIXED32) => span.flags = reader.fixed32()?,
                _ => reader.skip(wire_type)?,
            }
        }
        span.attributes = from.pairs_since(mark)?;
        let inner = std::mem::take(&mut from.inner);
        for (number, range) in &inner {
            match *number {
                EVENTS => span.events.push(Event::read(from, *range)?),
                _ => span.links.push(Link::read(from, *range)?),
            }
        }
        from.inner = inner;
        Ok(span)
    }

    fn write(&self, arena: &Arena, Output(out): &mut Output<'_>) {
        out.fixed32(16, self.flags);
        out.message(15, |out| {
            out.uint(3, self.status.code as u64);
            out.bytes(2, arena.bytes(self.status.message));
        });
        out.uint(14, u64::from(self.dropped_links));
        for link in self.links.iter().rev() {
            out.message(LINKS, |out| link.write(arena, out));
        }
        out.uint(12, u64::from(self.dropped_events));
        for event in self.events.iter().rev() {
            out.message(EVENTS, |out| event.write(arena, out));
        }
        out.uint(10, u64::from(self.dropped_attributes));
        arena.write_map(self.attributes, 9, out);
        out.fixed64(8, self.end_time_ns);
        out.fixed64(7, self.start_time_ns);
        out.uint(6, self.kind as u64);
        out.bytes(5, arena.bytes(self.name));
        out.bytes(4, id_bytes(&self.parent_span_id));
        out.bytes(3, arena.bytes(self.trace_state));
        out.bytes(2, id_bytes(&self.span_id));
        out.bytes(1, id_bytes(&self.trace_id));
    }

    fn carried(&self, from: &Arena, to: &mut Arena) -> Self {
        Span {
            trace_state: to.carry_text(from, self.trace_state),
            name: to.carry_text(from, self.name),
            attributes: to.carry_map(from, self.attributes),
            events: self.events.iter().map(|event| event.carried(from, to)).collect(),
            links: self.links.iter().map(|link| link.carried(from, to)).collect(),
            status: Status { code: self.status.code, message: to.carry_text(from, self.status.message) },
            ..*self
        }
    }
}

impl Event {
    fn read(from: &mut Source<'_>, message: Range) -> Result<Self, Malformed> {
        let mut event = Event::default();
        event.attributes = from.attributed(message, 3, |number, wire_type, reader| {
            match (number, wire_type) {
                (1, FIXED64) => event.time_ns = reader.fixed64()?,
                (2, BYTES) => event.name = Text::received(reader.bytes()?),
                (4, VARINT) => event.dropped_attributes = reader.varint()? as u32,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(event)
    }

    fn write(&self, arena: &Arena, out: &mut Back) {
        out.uint(4, u64::from(self.dropped_attributes));
        arena.write_map(self.attributes, 3, out);
        out.bytes(2, arena.bytes(self.name));
        out.fixed64(1, self.time_ns);
    }

    /// Brings an event into another arena.
    #[must_use]
    pub fn carried(&self, from: &Arena, to: &mut Arena) -> Self {
        Event { name: to.carry_text(from, self.name), attributes: to.carry_map(from, self.attributes), ..*self }
    }
}

impl Link {
    fn read(from: &mut Source<'_>, message: Range) -> Result<Self, Malformed> {
        let mut link = Link::default();
        link.attributes = from.attributed(message, 4, |number, wire_type, reader| {
            match (number, wire_type) {
                (1, BYTES) => link.trace_id = reader.id()?,
                (2, BYTES) => link.span_id = reader.id()?,
                (3, BYTES) => link.trace_state = Text::received(reader.bytes()?),
                (5, VARINT) => link.dropped_attributes = reader.varint()? as u32,
                (6, FIXED32) => link.flags = reader.fixed32()?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(link)
    }

    fn write(&self, arena: &Arena, out: &mut Back) {
        out.fixed32(6, self.flags);
        out.uint(5, u64::from(self.dropped_attributes));
        arena.write_map(self.attributes, 4, out);
        out.bytes(3, arena.bytes(self.trace_state));
        out.bytes(2, id_bytes(&self.span_id));
        out.bytes(1, id_bytes(&self.trace_id));
    }

    /// Brings a link into another arena.
    #[must_use]
    pub fn carried(&self, from: &Arena, to: &mut Arena) -> Self {
        Link {
            trace_state: to.carry_text(from, self.trace_state),
            attributes: to.carry_map(from, self.attributes),
            ..*self
        }
    }
}
