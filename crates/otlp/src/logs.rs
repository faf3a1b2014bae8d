//! Log records.

use crate::arena::{Arena, Map, Text, Value};
use crate::data::{Output, Range, Record, Schema, Source, id_bytes};
use crate::proto::{BYTES, FIXED32, FIXED64, Malformed, VARINT};
use crate::schema::LOGS;

/// A log record.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogRecord {
    /// When it happened, in nanoseconds since the Unix epoch; 0 if that is not known.
    pub time_ns: u64,
    /// When it was seen, in nanoseconds since the Unix epoch.
    pub observed_time_ns: u64,
    /// How severe it is: 1 to 24, or 0.
    pub severity: i32,
    /// What its source calls the severity.
    pub severity_text: Text,
    /// What it says.
    pub body: Value,
    /// What else is known of it.
    pub attributes: Map,
    /// How many attributes its sender dropped.
    pub dropped_attributes: u32,
    /// The lowest eight bits are the trace flags of W3C.
    pub flags: u32,
    /// The trace that it belongs to; zeros if to none.
    pub trace_id: [u8; 16],
    /// The span that it belongs to; zeros if to none.
    pub span_id: [u8; 8],
    /// The name of the event, if it is one.
    pub event_name: Text,
}

impl Record for LogRecord {
    const SIGNAL: &'static str = "logs";
    const SCHEMA: Schema = Schema(&LOGS);

    fn items(&self) -> usize {
        1
    }

    fn read(from: &mut Source<'_>, message: Range) -> Result<Self, Malformed> {
        let mut record = LogRecord::default();
        let mut body = None;
        let mark = from.arena.pairs_mark();
        let mut reader = from.reader(message);
        while let Some((number, wire_type)) = reader.field()? {
            match (number, wire_type) {
                (1, FIXED64) => record.time_ns = reader.fixed64()?,
                (2, VARINT) => record.severity = reader.varint()? as i32,
                (3, BYTES) => record.severity_text = from.text(reader.bytes()?),
                (5, BYTES) => body = Some(reader.message()?),
                (6, BYTES) => from.pair(reader.message()?)?,
                (7, VARINT) => record.dropped_attributes = reader.varint()? as u32,
                (8, FIXED32) => record.flags = reader.fixed32()?,
                (9, BYTES) => record.trace_id = reader.id()?,
                (10, BYTES) => record.span_id = reader.id()?,
                (11, FIXED64) => record.observed_time_ns = reader.fixed64()?,
                (12, BYTES) => record.event_name = from.text(reader.bytes()?),
                _ => reader.skip(wire_type)?,
            }
        }
        record.attributes = from.pairs_since(mark)?;
        if let Some(body) = body {
            record.body = from.arena.read_body(body, &mut from.later)?;
        }
        Ok(record)
    }

    fn write(&self, arena: &Arena, Output(out): &mut Output<'_>) {
        out.bytes(12, arena.bytes(self.event_name));
        out.fixed64(11, self.observed_time_ns);
        out.bytes(10, id_bytes(&self.span_id));
        out.bytes(9, id_bytes(&self.trace_id));
        out.fixed32(8, self.flags);
        out.uint(7, u64::from(self.dropped_attributes));
        arena.write_map(self.attributes, 6, out);
        out.message(5, |out| arena.write_value(self.body, out));
        out.bytes(3, arena.bytes(self.severity_text));
        out.uint(2, self.severity as u64);
        out.fixed64(1, self.time_ns);
    }

    fn carried(&self, from: &Arena, to: &mut Arena) -> Self {
        LogRecord {
            severity_text: to.carry_text(from, self.severity_text),
            body: to.carry(from, self.body),
            attributes: to.carry_map(from, self.attributes),
            event_name: to.carry_text(from, self.event_name),
            ..*self
        }
    }
}
