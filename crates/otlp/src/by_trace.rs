//! Spans by the traces that they belong to, as messages of their own. Nothing is decoded.

use corten_signal::labels::varint_len;

use crate::batch::Batch;
use crate::data::id_bytes;
use crate::proto::{BYTES, Malformed, Reader, put_head};
use crate::traces::Span;

/// The spans of one trace in one resource of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracePart {
    /// The trace.
    pub trace_id: [u8; 16],
    /// How many spans there are.
    pub spans: usize,
    /// Whether one of them has no parent.
    pub has_root: bool,
    /// The request that would send them alone.
    pub message: Vec<u8>,
}

impl Batch<Span> {
    /// The spans by traces, those of each resource by themselves. What says something of a resource or scope is in each of
    /// its parts. Resources without spans are in none.
    pub fn by_trace(&self) -> Vec<TracePart> {
        let mut parts = Vec::new();
        for message in self.message() {
            // The message was looked at when it was received, so that it can be read.
            let _ = requests(message, &mut parts);
        }
        parts
    }
}

/// A span where it stands in the message.
struct Place {
    trace_id: [u8; 16],
    scope: usize,
    field: (usize, usize),
    is_root: bool,
}

fn requests(buffer: &[u8], parts: &mut Vec<TracePart>) -> Result<(), Malformed> {
    let mut reader = Reader::new(buffer, 0, buffer.len());
    while let Some((number, wire_type)) = reader.field()? {
        match (number, wire_type) {
            (1, BYTES) => resource(buffer, reader.message()?, parts)?,
            _ => reader.skip(wire_type)?,
        }
    }
    Ok(())
}

fn resource(buffer: &[u8], mut reader: Reader<'_>, parts: &mut Vec<TracePart>) -> Result<(), Malformed> {
    // What is said of the resource, and of each scope.
    let (mut said, mut scopes) = (Vec::new(), Vec::<Vec<u8>>::new());
    let mut places = Vec::new();
    loop {
        let start = reader.at();
        let Some((number, wire_type)) = reader.field()? else { break };
        if !matches!((number, wire_type), (2 | 1000, BYTES)) {
            reader.skip(wire_type)?;
            said.extend_from_slice(&buffer[start..reader.at()]);
            continue;
        }
        let mut scope = reader.message()?;
        let mut said = Vec::new();
        loop {
            let start = scope.at();
            let Some((number, wire_type)) = scope.field()? else { break };
            if (number, wire_type) != (2, BYTES) {
                scope.skip(wire_type)?;
                said.extend_from_slice(&buffer[start..scope.at()]);
                continue;
            }
            let (trace_id, is_root) = span(scope.message()?)?;
            places.push(Place { trace_id, scope: scopes.len(), field: (start, scope.at()), is_root });
        }
        scopes.push(said);
    }
    // Those of a trace stay in their order.
    places.sort_by_key(|place| place.trace_id);
    let of_field = |len: usize| 1 + varint_len(len as u64) + len;
    for places in places.chunk_by(|a, b| a.trace_id == b.trace_id) {
        let by_scope = || places.chunk_by(|a, b| a.scope == b.scope);
        let len = |places: &[Place]| {
            let spans: usize = places.iter().map(|place| place.field.1 - place.field.0).sum();
            scopes[places[0].scope].len() + spans
        };
        let whole = said.len() + by_scope().map(|places| of_field(len(places))).sum::<usize>();
        let mut message = Vec::with_capacity(of_field(whole));
        put_head(&mut message, 1, whole);
        message.extend_from_slice(&said);
        for places in by_scope() {
            put_head(&mut message, 2, len(places));
            message.extend_from_slice(&scopes[places[0].scope]);
            for place in places {
                message.extend_from_slice(&buffer[place.field.0..place.field.1]);
            }
        }
        let has_root = places.iter().any(|place| place.is_root);
        parts.push(TracePart { trace_id: places[0].trace_id, spans: places.len(), has_root, message });
    }
    Ok(())
}

/// The trace of a span, and whether the span has no parent.
fn span(mut reader: Reader<'_>) -> Result<([u8; 16], bool), Malformed> {
    let (mut trace_id, mut parent) = ([0; 16], [0; 8]);
    while let Some((number, wire_type)) = reader.field()? {
        match (number, wire_type) {
            (1, BYTES) => trace_id = reader.id()?,
            (4, BYTES) => parent = reader.id()?,
            _ => reader.skip(wire_type)?,
        }
    }
    Ok((trace_id, id_bytes(&parent).is_empty()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn batch(json: &str) -> Batch<Span> {
        Batch::received_json(json.as_bytes(), Arc::default()).unwrap()
    }

    #[test]
    fn each_trace_has_its_spans_with_their_scopes_and_resource() {
        let (a, b) = ("0a".repeat(16), "0b".repeat(16));
        let span = |trace: &str, name: &str, parent: &str| {
            format!(r#"{{"traceId":"{trace}","parentSpanId":"{parent}","name":"{name}"}}"#)
        };
        let scope = |name: &str, spans: &[String]| {
            format!(r#"{{"scope":{{"name":"{name}"}},"spans":[{}],"schemaUrl":"u"}}"#, spans.join(","))
        };
        let resource = |scopes: &[String]| {
            format!(
                r#"{{"resource":{{"droppedAttributesCount":7}},"scopeSpans":[{}],"schemaUrl":"r"}}"#,
                scopes.join(",")
            )
        };
        let child = "01".repeat(8);
        let first = resource(&[
            scope("x", &[span(&b, "1", &child), span(&a, "2", &child)]),
            scope("y", &[span(&b, "3", ""), span(&b, "4", &child)]),
            scope("z", &[]),
        ]);
        let second = resource(&[scope("x", &[span(&a, "5", &child)])]);
        let parts = batch(&format!(r#"{{"resourceSpans":[{first},{second}]}}"#)).by_trace();
        let found: Vec<_> = parts.iter().map(|part| (part.trace_id[0], part.spans, part.has_root)).collect();
        assert_eq!(found, [(10, 1, false), (11, 3, true), (10, 1, false)]);
        let json = |part: &TracePart| {
            let batch = Batch::<Span>::received(part.message.clone().into(), Arc::default()).unwrap();
            String::from_utf8(batch.to_json()).unwrap()
        };
        let alone = |scopes: &[String]| {
            String::from_utf8(batch(&format!(r#"{{"resourceSpans":[{}]}}"#, resource(scopes))).to_json()).unwrap()
        };
        assert_eq!(json(&parts[0]), alone(&[scope("x", &[span(&a, "2", &child)])]));
        let spans = [scope("x", &[span(&b, "1", &child)]), scope("y", &[span(&b, "3", ""), span(&b, "4", &child)])];
        assert_eq!(json(&parts[1]), alone(&spans));
        assert_eq!(json(&parts[2]), alone(&[scope("x", &[span(&a, "5", &child)])]));
    }

    proptest! {
        #[test]
        fn what_is_received_comes_apart(bytes: Vec<u8>) {
            let mut parts = Vec::new();
            let _ = requests(&bytes, &mut parts);
            if let Ok(batch) = Batch::<Span>::received(bytes.into(), Arc::default()) {
                let parts = batch.by_trace();
                prop_assert_eq!(parts.iter().map(|part| part.spans).sum::<usize>(), batch.items());
                for part in parts {
                    let alone = Batch::<Span>::received(part.message.into(), Arc::default());
                    prop_assert_eq!(alone.map(|alone| alone.items()), Ok(part.spans));
                }
            }
        }
    }
}
