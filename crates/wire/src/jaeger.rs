//! Jaeger's spans: in Thrift (`jaeger.thrift`, `agent.thrift`) and in protocol buffers (`model.proto`, `collector.proto`).

use crate::proto::{Field as ProtoField, Fields, ProtoError};
use crate::thrift::{Kind, Reader};
pub use crate::thrift::{Protocol, ThriftError};

/// Spans of one process, mostly.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch<'a> {
    /// The process of the spans that have none of their own.
    pub process: Option<Process<'a>>,
    /// The spans.
    pub spans: Vec<Span<'a>>,
}

/// What recorded spans.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Process<'a> {
    /// Its service.
    pub service_name: &'a [u8],
    /// What else is known of it.
    pub tags: Vec<Tag<'a>>,
}

/// Something that is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tag<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// Its value.
    pub value: TagValue<'a>,
}

/// The value of a tag.
#[derive(Clone, Debug, PartialEq)]
pub enum TagValue<'a> {
    /// A text.
    Text(&'a [u8]),
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Double(f64),
    /// Bytes.
    Bytes(&'a [u8]),
    /// A type that is not known, and how the reference calls it.
    Unknown(String),
}

impl Default for TagValue<'_> {
    fn default() -> Self {
        TagValue::Text(b"")
    }
}

/// An operation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Span<'a> {
    /// The trace that it belongs to.
    pub trace_id: [u8; 16],
    /// Its own id.
    pub span_id: [u8; 8],
    /// The span within which it took place, where that is said beside the references; zeros otherwise.
    pub parent_span_id: [u8; 8],
    /// What was done.
    pub operation: &'a [u8],
    /// Spans that it has to do with.
    pub references: Vec<Reference>,
    /// The lowest bit says that the trace was sampled.
    pub flags: u32,
    /// When it began, in nanoseconds since the Unix epoch.
    pub start_ns: u64,
    /// When it ended, in nanoseconds since the Unix epoch.
    pub end_ns: u64,
    /// What else is known of it.
    pub tags: Vec<Tag<'a>>,
    /// What happened meanwhile.
    pub logs: Vec<Log<'a>>,
    /// Its own process.
    pub process: Option<Process<'a>>,
}

/// A span that another one has to do with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reference {
    /// Whether it is the one within which the other took place, and not one that it follows.
    pub is_parent: bool,
    /// Its trace.
    pub trace_id: [u8; 16],
    /// Its id.
    pub span_id: [u8; 8],
}

/// Something that happened.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Log<'a> {
    /// When, in nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// What.
    pub fields: Vec<Tag<'a>>,
}

fn trace_id(high: i64, low: i64) -> [u8; 16] {
    ((high as u64 as u128) << 64 | low as u64 as u128).to_be_bytes()
}

/// Which fields of a structure were there.
struct Seen(u32);

impl Seen {
    fn new() -> Self {
        Seen(0)
    }

    fn see(&mut self, id: i16) {
        self.0 |= u32::try_from(id).ok().and_then(|id| 1u32.checked_shl(id)).unwrap_or(0);
    }

    fn require(&self, fields: &[(u32, &'static str)]) -> Result<(), ThriftError> {
        match fields.iter().find(|(id, _)| self.0 & 1 << id == 0) {
            Some((_, name)) => Err(ThriftError::Missing(name)),
            None => Ok(()),
        }
    }
}

/// Reads a batch as Jaeger's collector takes it.
///
/// # Errors
///
/// What is wrong with it.
pub fn read_batch(bytes: &[u8], protocol: Protocol) -> Result<Batch<'_>, ThriftError> {
    thrift_batch(&mut Reader::new(bytes, protocol))
}

/// Reads a batch as Jaeger's agent takes it: as a call of `emitBatch`.
///
/// # Errors
///
/// What is wrong with it.
pub fn read_emit_batch(bytes: &[u8], protocol: Protocol) -> Result<Batch<'_>, ThriftError> {
    let mut reader = Reader::new(bytes, protocol);
    let name = reader.call()?;
    if name != b"emitBatch" {
        return Err(ThriftError::Call(format!("Unknown function {}", String::from_utf8_lossy(name))));
    }
    let (mut batch, mut last) = (None, 0);
    while let Some(field) = reader.field(&mut last)? {
        match (field.id, field.kind) {
            (1, Kind::Struct) => batch = Some(thrift_batch(&mut reader)?),
            _ => reader.skip(field)?,
        }
    }
    batch.ok_or(ThriftError::Missing("Batch"))
}

fn thrift_batch<'a>(reader: &mut Reader<'a>) -> Result<Batch<'a>, ThriftError> {
    let (mut batch, mut seen, mut last) = (Batch::default(), Seen::new(), 0);
    while let Some(field) = reader.field(&mut last)? {
        match (field.id, field.kind) {
            (1, Kind::Struct) => batch.process = Some(thrift_process(reader)?),
            (2, Kind::List) => batch.spans = reader.structs(thrift_span)?,
            _ => {
                reader.skip(field)?;
                continue;
            }
        }
        seen.see(field.id);
    }
    seen.require(&[(1, "Process"), (2, "Spans")])?;
    Ok(batch)
}

fn thrift_process<'a>(reader: &mut Reader<'a>) -> Result<Process<'a>, ThriftError> {
    let (mut process, mut seen, mut last) = (Process::default(), Seen::new(), 0);
    while let Some(field) = reader.field(&mut last)? {
        match (field.id, field.kind) {
            (1, Kind::Bytes) => process.service_name = reader.bytes()?,
            (2, Kind::List) => process.tags = reader.structs(thrift_tag)?,
            _ => {
                reader.skip(field)?;
                continue;
            }
        }
        seen.see(field.id);
    }
    seen.require(&[(1, "ServiceName")])?;
    Ok(process)
}

fn thrift_tag<'a>(reader: &mut Reader<'a>) -> Result<Tag<'a>, ThriftError> {
    let (mut key, mut kind, mut seen, mut last) = (&b""[..], 0, Seen::new(), 0);
    let (mut text, mut double, mut truth, mut whole, mut bytes) = (&b""[..], 0.0, false, 0, &b""[..]);
    while let Some(field) = reader.field(&mut last)? {
        match (field.id, field.kind) {
            (1, Kind::Bytes) => key = reader.bytes()?,
            (2, Kind::I32) => kind = reader.i32()?,
            (3, Kind::Bytes) => text = reader.bytes()?,
            (4, Kind::Double) => double = reader.double()?,
            (5, Kind::Bool) => truth = reader.bool(field)?,
            (6, Kind::I64) => whole = reader.i64()?,
            (7, Kind::Bytes) => bytes = reader.bytes()?,
            _ => {
                reader.skip(field)?;
                continue;
            }
        }
        seen.see(field.id);
    }
    seen.require(&[(1, "Key"), (2, "VType")])?;
    let value = match kind {
        0 => TagValue::Text(text),
        1 => TagValue::Double(double),
        2 => TagValue::Bool(truth),
        3 => TagValue::Int(whole),
        4 => TagValue::Bytes(bytes),
        _ => TagValue::Unknown("<UNSET>".to_owned()),
    };
    Ok(Tag { key, value })
}

fn thrift_log<'a>(reader: &mut Reader<'a>) -> Result<Log<'a>, ThriftError> {
    let (mut log, mut seen, mut last) = (Log::default(), Seen::new(), 0);
    while let Some(field) = reader.field(&mut last)? {
        match (field.id, field.kind) {
            (1, Kind::I64) => log.time_ns = of_micros(reader.i64()?),
            (2, Kind::List) => log.fields = reader.structs(thrift_tag)?,
            _ => {
                reader.skip(field)?;
                continue;
            }
        }
        seen.see(field.id);
    }
    seen.require(&[(1, "Timestamp"), (2, "Fields")])?;
    Ok(log)
}

fn thrift_reference(reader: &mut Reader<'_>) -> Result<Reference, ThriftError> {
    let (mut kind, mut low, mut high, mut span, mut seen, mut last) = (0, 0, 0, 0, Seen::new(), 0);
    while let Some(field) = reader.field(&mut last)? {
        match (field.id, field.kind) {
            (1, Kind::I32) => kind = reader.i32()?,
            (2, Kind::I64) => low = reader.i64()?,
            (3, Kind::I64) => high = reader.i64()?,
            (4, Kind::I64) => span = reader.i64()?,
            _ => {
                reader.skip(field)?;
                continue;
            }
        }
        seen.see(field.id);
    }
    seen.require(&[(1, "RefType"), (2, "TraceIdLow"), (3, "TraceIdHigh"), (4, "SpanId")])?;
    Ok(Reference { is_parent: kind == 0, trace_id: trace_id(high, low), span_id: span.to_be_bytes() })
}

fn thrift_span<'a>(reader: &mut Reader<'a>) -> Result<Span<'a>, ThriftError> {
    let (mut span, mut seen, mut last) = (Span::default(), Seen::new(), 0);
    let (mut low, mut high, mut start, mut duration) = (0, 0, 0i64, 0);
    while let Some(field) = reader.field(&mut last)? {
        match (field.id, field.kind) {
            (1, Kind::I64) => low = reader.i64()?,
            (2, Kind::I64) => high = reader.i64()?,
            (3, Kind::I64) => span.span_id = reader.i64()?.to_be_bytes(),
            (4, Kind::I64) => span.parent_span_id = reader.i64()?.to_be_bytes(),
            (5, Kind::Bytes) => span.operation = reader.bytes()?,
            (6, Kind::List) => span.references = reader.structs(thrift_reference)?,
            (7, Kind::I32) => span.flags = reader.i32()? as u32,
            (8, Kind::I64) => start = reader.i64()?,
            (9, Kind::I64) => duration = reader.i64()?,
            (10, Kind::List) => span.tags = reader.structs(thrift_tag)?,
            (11, Kind::List) => span.logs = reader.structs(thrift_log)?,
            _ => {
                reader.skip(field)?;
                continue;
            }
        }
        seen.see(field.id);
    }
    seen.require(&[
        (1, "TraceIdLow"),
        (2, "TraceIdHigh"),
        (3, "SpanId"),
        (4, "ParentSpanId"),
        (5, "OperationName"),
        (7, "Flags"),
        (8, "StartTime"),
        (9, "Duration"),
    ])?;
    span.trace_id = trace_id(high, low);
    span.start_ns = of_micros(start);
    span.end_ns = of_micros(start.wrapping_add(duration));
    Ok(span)
}

fn of_micros(micros: i64) -> u64 {
    (micros as u64).wrapping_mul(1000)
}

/// Reads `PostSpansRequest`: a batch as Jaeger's collector takes it over gRPC.
///
/// # Errors
///
/// What is wrong with it.
pub fn read_post_spans(message: &[u8]) -> Result<Batch<'_>, ProtoError> {
    let (mut batch, mut fields) = (Batch::default(), Fields::new(message));
    while let Some(field) = fields.next()? {
        if field.number != 1 {
            continue;
        }
        let mut fields = field.message()?;
        while let Some(field) = fields.next()? {
            match field.number {
                1 => batch.spans.push(proto_span(field.message()?)?),
                2 => batch.process = Some(proto_process(field.message()?)?),
                _ => {}
            }
        }
    }
    Ok(batch)
}

/// An id has its length, or is not there.
fn proto_id<const N: usize>(field: &ProtoField<'_>) -> Result<[u8; N], ProtoError> {
    // The reference cuts off what is longer.
    field.bytes()?.first_chunk::<N>().copied().ok_or(ProtoError::Truncated)
}

fn proto_process(mut fields: Fields<'_>) -> Result<Process<'_>, ProtoError> {
    let mut process = Process::default();
    while let Some(field) = fields.next()? {
        match field.number {
            1 => process.service_name = field.bytes()?,
            2 => process.tags.push(proto_tag(field.message()?)?),
            _ => {}
        }
    }
    Ok(process)
}

fn proto_tag(mut fields: Fields<'_>) -> Result<Tag<'_>, ProtoError> {
    let (mut key, mut kind) = (&b""[..], 0);
    let (mut text, mut truth, mut whole, mut double, mut bytes) = (&b""[..], false, 0, 0.0, &b""[..]);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => key = field.bytes()?,
            2 => kind = field.int64()? as i32,
            3 => text = field.bytes()?,
            4 => truth = field.uint64()? != 0,
            5 => whole = field.int64()?,
            6 => double = field.double()?,
            7 => bytes = field.bytes()?,
            _ => {}
        }
    }
    let value = match kind {
        0 => TagValue::Text(text),
        1 => TagValue::Bool(truth),
        2 => TagValue::Int(whole),
        3 => TagValue::Double(double),
        4 => TagValue::Bytes(bytes),
        other => TagValue::Unknown(other.to_string()),
    };
    Ok(Tag { key, value })
}

/// Seconds and nanoseconds of a time or a duration, in nanoseconds.
fn proto_time(mut fields: Fields<'_>) -> Result<i64, ProtoError> {
    let (mut seconds, mut nanos) = (0i64, 0);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => seconds = field.int64()?,
            2 => nanos = i64::from(field.int64()? as i32),
            _ => {}
        }
    }
    if nanos.abs() >= 1_000_000_000 {
        return Err(ProtoError::InvalidTime);
    }
    Ok(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

fn proto_span(mut fields: Fields<'_>) -> Result<Span<'_>, ProtoError> {
    let (mut span, mut start, mut duration) = (Span::default(), 0i64, 0);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => span.trace_id = proto_id(&field)?,
            2 => span.span_id = proto_id(&field)?,
            3 => span.operation = field.bytes()?,
            4 => span.references.push(proto_reference(field.message()?)?),
            5 => span.flags = field.uint32()?,
            6 => start = proto_time(field.message()?)?,
            7 => duration = proto_time(field.message()?)?,
            8 => span.tags.push(proto_tag(field.message()?)?),
            9 => span.logs.push(proto_log(field.message()?)?),
            10 => span.process = Some(proto_process(field.message()?)?),
            _ => {}
        }
    }
    span.start_ns = start as u64;
    span.end_ns = start.saturating_add(duration) as u64;
    Ok(span)
}

fn proto_reference(mut fields: Fields<'_>) -> Result<Reference, ProtoError> {
    let mut reference = Reference { is_parent: true, ..Reference::default() };
    while let Some(field) = fields.next()? {
        match field.number {
            1 => reference.trace_id = proto_id(&field)?,
            2 => reference.span_id = proto_id(&field)?,
            3 => reference.is_parent = field.uint64()? == 0,
            _ => {}
        }
    }
    Ok(reference)
}

fn proto_log(mut fields: Fields<'_>) -> Result<Log<'_>, ProtoError> {
    let mut log = Log::default();
    while let Some(field) = fields.next()? {
        match field.number {
            1 => log.time_ns = proto_time(field.message()?)? as u64,
            2 => log.fields.push(proto_tag(field.message()?)?),
            _ => {}
        }
    }
    Ok(log)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::thrift::testing::Writer;

    const PROTOCOLS: [Protocol; 2] = [Protocol::Binary, Protocol::Compact];

    fn tag(out: &mut Writer, tag: &Tag<'_>) {
        out.bytes(1, tag.key);
        let kind = |out: &mut Writer, kind| out.i32(2, kind);
        match &tag.value {
            TagValue::Text(text) => {
                kind(out, 0);
                out.bytes(3, text);
            }
            TagValue::Double(value) => {
                kind(out, 1);
                out.double(4, *value);
            }
            TagValue::Bool(value) => {
                kind(out, 2);
                out.bool(5, *value);
            }
            TagValue::Int(value) => {
                kind(out, 3);
                out.i64(6, *value);
            }
            TagValue::Bytes(bytes) => {
                kind(out, 4);
                out.bytes(7, bytes);
            }
            TagValue::Unknown(_) => kind(out, 9),
        }
    }

    fn batch() -> Batch<'static> {
        let tags = || {
            let values = [
                TagValue::Text(b"t"),
                TagValue::Double(-0.5),
                TagValue::Bool(true),
                TagValue::Int(-7),
                TagValue::Bytes(b"\xff"),
                TagValue::Unknown("<UNSET>".to_owned()),
            ];
            values.into_iter().map(|value| Tag { key: b"k", value }).collect::<Vec<_>>()
        };
        let span = Span {
            trace_id: [1; 16],
            span_id: [2; 8],
            parent_span_id: [3; 8],
            operation: b"op",
            references: vec![Reference { is_parent: false, trace_id: [4; 16], span_id: [5; 8] }],
            flags: 1,
            start_ns: 7_000_000,
            end_ns: 9_000_000,
            tags: tags(),
            logs: vec![Log { time_ns: 8_000_000, fields: tags() }],
            process: None,
        };
        Batch { process: Some(Process { service_name: b"s", tags: tags() }), spans: vec![span, Span::default()] }
    }

    fn write_batch(out: &mut Writer, batch: &Batch<'_>) {
        let id = |bytes: &[u8]| i64::from_be_bytes(*bytes.first_chunk().unwrap());
        if let Some(process) = &batch.process {
            out.structure(1, |out| {
                out.bytes(1, process.service_name);
                out.structs(2, &process.tags, tag);
            });
        }
        out.structs(2, &batch.spans, |out, span| {
            out.i64(1, id(&span.trace_id[8..]));
            out.i64(2, id(&span.trace_id));
            out.i64(3, id(&span.span_id));
            out.i64(4, id(&span.parent_span_id));
            out.bytes(5, span.operation);
            out.structs(6, &span.references, |out, reference| {
                out.i32(1, i32::from(!reference.is_parent));
                out.i64(2, id(&reference.trace_id[8..]));
                out.i64(3, id(&reference.trace_id));
                out.i64(4, id(&reference.span_id));
            });
            out.i32(7, span.flags as i32);
            out.i64(8, (span.start_ns / 1000) as i64);
            out.i64(9, (span.end_ns / 1000 - span.start_ns / 1000) as i64);
            out.structs(10, &span.tags, tag);
            out.structs(11, &span.logs, |out, log| {
                out.i64(1, (log.time_ns / 1000) as i64);
                out.structs(2, &log.fields, tag);
            });
        });
        out.i64(3, 5);
    }

    fn written(protocol: Protocol, batch: &Batch<'_>) -> Vec<u8> {
        let mut out = Writer::new(protocol);
        out.inside(|out| write_batch(out, batch));
        out.out
    }

    #[test]
    fn a_batch_is_read_from_either_protocol() {
        for protocol in PROTOCOLS {
            let bytes = written(protocol, &batch());
            assert_eq!(read_batch(&bytes, protocol), Ok(batch()));
            let head = match protocol {
                Protocol::Binary => &b"\x80\x01\0\x04\0\0\0\x09emitBatch\0\0\0\0\x0c\0\x01"[..],
                Protocol::Compact => b"\x82\x81\0\x09emitBatch\x1c",
            };
            let call = [head, &bytes, b"\0"].concat();
            assert_eq!(read_emit_batch(&call, protocol), Ok(batch()));
            let other = String::from_utf8_lossy(&call).replace("emitBatch", "emitOther");
            if protocol == Protocol::Compact {
                assert!(read_emit_batch(other.as_bytes(), protocol).is_err());
            }
            for len in 0..bytes.len() {
                assert!(read_batch(&bytes[..len], protocol).is_err(), "{len}");
            }
        }
    }

    #[test]
    fn what_has_to_be_there_is_missed() {
        for protocol in PROTOCOLS {
            let mut out = Writer::new(protocol);
            out.inside(|out| out.structure(1, |out| out.bytes(1, b"s")));
            assert_eq!(read_batch(&out.out, protocol).unwrap_err().to_string(), "Required field Spans is not set");
            let mut out = Writer::new(protocol);
            out.inside(|out| out.structs(2, &[()], |out, ()| out.i64(1, 1)));
            assert_eq!(
                read_batch(&out.out, protocol).unwrap_err().to_string(),
                "Required field TraceIdHigh is not set"
            );
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, at: usize, bit in 0u8..8) {
            for protocol in PROTOCOLS {
                let _ = read_batch(&bytes, protocol);
                let _ = read_emit_batch(&bytes, protocol);
                let mut bytes = written(protocol, &batch());
                let at = at % bytes.len();
                bytes[at] ^= 1 << bit;
                let _ = read_batch(&bytes, protocol);
            }
            let _ = read_post_spans(&bytes);
            let _ = read_post_spans(&[&[10, bytes.len().min(127) as u8][..], &bytes].concat());
        }
    }
}
