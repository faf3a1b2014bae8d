//! Walks over messages that stay bytes: whether one is what it says, how many items it has, and cutting it between two.

use crate::proto::{BYTES, FIXED32, FIXED64, Malformed, Reader, VARINT, put_head};
use crate::schema::{Kind, Message, Presence};

/// How deep messages may lie within messages. What a decoder of Google's takes is the same.
pub(crate) const DEPTH_MAX: u32 = 100;
/// The longest message, in bytes: places in it have 30 bits.
pub const MESSAGE_BYTES_MAX: usize = 1 << 30;

/// Looks at every field of a message, to full depth, and counts its items.
///
/// # Errors
///
/// The first thing that is wrong.
pub(crate) fn check(schema: &'static Message, bytes: &[u8]) -> Result<usize, Malformed> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(Malformed::TooLong);
    }
    let mut items = 0;
    check_message(schema, Reader::new(bytes, 0, bytes.len()), 0, &mut items)?;
    Ok(items)
}

fn check_message(
    schema: &'static Message,
    mut reader: Reader<'_>,
    depth: u32,
    items: &mut usize,
) -> Result<(), Malformed> {
    if depth > DEPTH_MAX {
        return Err(Malformed::TooDeep);
    }
    *items += usize::from(schema.item);
    while let Some((number, wire_type)) = reader.field()? {
        let Some(field) = schema.field(number) else {
            // Somebody's newer version.
            reader.skip(wire_type)?;
            continue;
        };
        let repeated = field.presence == Presence::Repeated;
        match (field.kind, wire_type) {
            (Kind::Message(inner), BYTES) => check_message(inner, reader.message()?, depth + 1, items)?,
            (Kind::String | Kind::Bytes, BYTES) => {
                reader.bytes()?;
            }
            (Kind::Id(id, want), BYTES) => {
                let (start, end) = reader.bytes()?;
                let len = end - start;
                if len != 0 && len != want {
                    return Err(Malformed::WrongIdLength { id, len });
                }
            }
            (
                Kind::Bool | Kind::Int32 | Kind::Uint32 | Kind::Int64 | Kind::Uint64 | Kind::Sint32 | Kind::Enum(_),
                VARINT,
            ) => {
                reader.varint()?;
            }
            (Kind::Fixed64 | Kind::Sfixed64 | Kind::Double, FIXED64) => {
                reader.fixed64()?;
            }
            (Kind::Fixed32, FIXED32) => {
                reader.fixed32()?;
            }
            (Kind::Fixed64 | Kind::Double, BYTES) if repeated => {
                let (start, end) = reader.bytes()?;
                if !(end - start).is_multiple_of(8) {
                    return Err(Malformed::Truncated);
                }
            }
            (Kind::Uint64, BYTES) if repeated => {
                let mut packed = reader.message()?;
                while !packed.is_empty() {
                    packed.varint()?;
                }
            }
            (_, VARINT | FIXED64 | BYTES | FIXED32) => {
                return Err(Malformed::WrongWireType { message: schema.name, field: number });
            }
            (_, other) => return Err(Malformed::IllegalWireType(other as u8)),
        }
    }
    Ok(())
}

/// Counts the items of a message that was checked.
fn count(schema: &'static Message, mut reader: Reader<'_>) -> usize {
    if schema.item {
        return 1;
    }
    let mut items = 0;
    while let Ok(Some((number, wire_type))) = reader.field() {
        match schema.field(number).map(|field| field.kind) {
            Some(Kind::Message(inner)) if inner.item || inner.holds_items => {
                let Ok(message) = reader.message() else { break };
                items += count(inner, message);
            }
            _ => {
                if reader.skip(wire_type).is_err() {
                    break;
                }
            }
        }
    }
    items
}

/// The parts of a message on the two sides of a cut.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) front: Vec<u8>,
    pub(crate) rest: Vec<u8>,
}

/// Cuts a message that was checked after `items` of its items, which are at least one and fewer than it has. What holds
/// items on both sides, with all that it says about them, stands on both sides.
pub(crate) fn cut(schema: &'static Message, bytes: &[u8], items: usize) -> Cut {
    let mut left = items;
    cut_message(schema, bytes, Reader::new(bytes, 0, bytes.len()), &mut left)
}

fn cut_message(schema: &'static Message, buffer: &[u8], mut reader: Reader<'_>, left: &mut usize) -> Cut {
    let mut cut = Cut::default();
    loop {
        let start = reader.at();
        let Ok(Some((number, wire_type))) = reader.field() else { break };
        let inner = match schema.field(number).map(|field| field.kind) {
            Some(Kind::Message(inner)) if inner.item || inner.holds_items => inner,
            _ => {
                if reader.skip(wire_type).is_err() {
                    break;
                }
                let field = &buffer[start..reader.at()];
                cut.front.extend_from_slice(field);
                cut.rest.extend_from_slice(field);
                continue;
            }
        };
        let Ok(message) = reader.message() else { break };
        let field = &buffer[start..reader.at()];
        let has = if *left == 0 { 1 } else { count(inner, message) };
        if *left == 0 {
            cut.rest.extend_from_slice(field);
        } else if has <= *left {
            *left -= has;
            cut.front.extend_from_slice(field);
        } else {
            let parts = cut_message(inner, buffer, message, left);
            put_message(&mut cut.front, number, &parts.front);
            put_message(&mut cut.rest, number, &parts.rest);
        }
    }
    cut
}

fn put_message(out: &mut Vec<u8>, number: u32, message: &[u8]) {
    put_head(out, number, message.len());
    out.extend_from_slice(message);
}

/// A message that was checked, without some of its records, whose numbers from 0 on are in order, and without the scopes
/// and resources that have none.
pub(crate) fn without(bytes: &[u8], dropped: &[usize]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut records = Records { number: 0, dropped };
    records.keep(bytes, Reader::new(bytes, 0, bytes.len()), 0, &mut out);
    out
}

/// The records of a message, one after the other.
struct Records<'a> {
    number: usize,
    dropped: &'a [usize],
}

impl Records<'_> {
    /// Whether the next record is dropped.
    fn drops_next(&mut self) -> bool {
        let drops = self.dropped.first() == Some(&self.number);
        self.number += 1;
        self.dropped = &self.dropped[usize::from(drops)..];
        drops
    }

    /// Copies what is kept, and says how many records that is. Requests have resources, which have scopes, which have
    /// records.
    fn keep(&mut self, buffer: &[u8], mut reader: Reader<'_>, depth: u32, out: &mut Vec<u8>) -> usize {
        let mut kept = 0;
        loop {
            let start = reader.at();
            let Ok(Some((number, wire_type))) = reader.field() else { break };
            let holds_records = match depth {
                0 => number == 1,
                1 => number == 2 || number == 1000,
                _ => number == 2,
            };
            if depth < 2 && holds_records && wire_type == BYTES {
                let Ok(message) = reader.message() else { break };
                let mut inner = Vec::with_capacity(reader.at() - start);
                let records = self.keep(buffer, message, depth + 1, &mut inner);
                if records > 0 {
                    put_message(out, number, &inner);
                    kept += records;
                }
                continue;
            }
            if reader.skip(wire_type).is_err() {
                break;
            }
            if holds_records && wire_type == BYTES {
                if self.drops_next() {
                    continue;
                }
                kept += 1;
            }
            out.extend_from_slice(&buffer[start..reader.at()]);
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::Back;
    use crate::schema::{LOGS, METRICS, TRACES};

    fn message(write: impl FnOnce(&mut Back)) -> Vec<u8> {
        let mut out = Back::with_capacity(0);
        write(&mut out);
        out.finish()
    }

    /// Logs with so many records in each scope of each resource. A record's time is its number.
    fn logs(resources: &[Vec<usize>]) -> Vec<u8> {
        let mut number = resources.iter().flatten().sum::<usize>() as u64;
        message(|out| {
            for scopes in resources.iter().rev() {
                out.message(1, |out| {
                    out.bytes(3, b"schema");
                    for records in scopes.iter().rev() {
                        out.message(2, |out| {
                            for _ in 0..*records {
                                out.message(2, |out| out.fixed64(1, number));
                                number -= 1;
                            }
                            out.message(1, |out| out.bytes(1, b"scope"));
                        });
                    }
                    out.message(1, |_| {});
                });
            }
        })
    }

    /// The times of records, the schemas of resources and the names of scopes, in their order.
    fn seen(schema: &'static Message, bytes: &[u8]) -> (Vec<u64>, usize, usize) {
        fn walk(schema: &'static Message, mut reader: Reader<'_>, out: &mut (Vec<u64>, usize, usize)) {
            while let Some((number, wire_type)) = reader.field().unwrap() {
                match schema.field(number).unwrap().kind {
                    Kind::Message(inner) => walk(inner, reader.message().unwrap(), out),
                    Kind::Fixed64 => out.0.push(reader.fixed64().unwrap()),
                    Kind::String => {
                        out.1 += usize::from(schema.name == "ResourceLogs");
                        out.2 += usize::from(schema.name == "InstrumentationScope");
                        reader.skip(wire_type).unwrap();
                    }
                    _ => reader.skip(wire_type).unwrap(),
                }
            }
        }
        let mut out = Default::default();
        walk(schema, Reader::new(bytes, 0, bytes.len()), &mut out);
        out
    }

    #[test]
    fn a_field_of_another_wire_type_is_refused_at_any_depth() {
        let bytes = message(|out| out.message(1, |out| out.message(2, |out| out.message(2, |out| out.uint(1, 5)))));
        assert_eq!(check(&LOGS, &bytes), Err(Malformed::WrongWireType { message: "LogRecord", field: 1 }));
        assert_eq!(check(&TRACES, &bytes), Err(Malformed::WrongWireType { message: "Span", field: 1 }));
    }

    #[test]
    fn an_id_has_its_length_or_none() {
        let span = |id: &[u8]| {
            message(|out| out.message(1, |out| out.message(2, |out| out.message(2, |out| out.bytes_always(1, id)))))
        };
        assert_eq!(check(&TRACES, &span(&[1; 16])), Ok(1));
        assert_eq!(check(&TRACES, &span(b"")), Ok(1));
        assert_eq!(check(&TRACES, &span(&[1; 8])), Err(Malformed::WrongIdLength { id: "trace id", len: 8 }));
    }

    #[test]
    fn fields_that_are_not_known_are_passed_over() {
        let bytes = message(|out| {
            out.message(1, |out| {
                out.bytes(900, b"later");
                out.message(2, |out| out.message(2, |out| out.fixed32(99, 1)));
            });
            out.fixed64(7, 1);
        });
        assert_eq!(check(&LOGS, &bytes), Ok(1));
    }

    #[test]
    fn values_may_lie_within_values_but_not_without_end() {
        let nested = |depth: usize| {
            fn value(out: &mut Back, depth: usize) {
                match depth {
                    0 => out.bytes(1, b"x"),
                    _ => out.message(5, |out| out.message(1, |out| value(out, depth - 1))),
                }
            }
            let body = |out: &mut Back| out.message(5, |out| value(out, depth));
            message(|out| out.message(1, |out| out.message(2, |out| out.message(2, body))))
        };
        assert_eq!(check(&LOGS, &nested(40)), Ok(1));
        assert_eq!(check(&LOGS, &nested(49)), Err(Malformed::TooDeep));
        assert_eq!(check(&LOGS, &nested(1_000)), Err(Malformed::TooDeep));
    }

    #[test]
    fn the_field_of_old_senders_counts_as_the_new_one() {
        let bytes = message(|out| out.message(1, |out| out.message(1000, |out| out.message(2, |_| {}))));
        assert_eq!((check(&LOGS, &bytes), check(&TRACES, &bytes), check(&METRICS, &bytes)), (Ok(1), Ok(1), Ok(0)));
    }

    #[test]
    fn a_metric_is_cut_between_its_points() {
        let bytes = message(|out| {
            out.message(1, |out| {
                out.message(2, |out| {
                    out.message(2, |out| {
                        out.message(7, |out| {
                            out.uint(2, 2);
                            for time in [3, 2, 1] {
                                out.message(1, |out| out.fixed64(3, time));
                            }
                        });
                        out.bytes(1, b"requests");
                    });
                });
            });
        });
        assert_eq!(check(&METRICS, &bytes), Ok(3));
        let Cut { front, rest } = cut(&METRICS, &bytes, 2);
        assert_eq!((check(&METRICS, &front), check(&METRICS, &rest)), (Ok(2), Ok(1)));
        for side in [&front, &rest] {
            assert!(side.windows(8).any(|bytes| bytes == b"requests"));
            assert!(side.windows(2).any(|bytes| bytes == [0x10, 2]));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            for schema in [&LOGS, &METRICS, &TRACES] {
                let _ = check(schema, &bytes);
                let _ = cut(schema, &bytes, 1);
                let _ = without(&bytes, &[0, 2]);
            }
        }

        #[test]
        fn a_flipped_bit_is_refused_or_counted(resources in proptest::collection::vec(proptest::collection::vec(0usize..4, 0..4), 0..4), at: proptest::sample::Index, bit in 0u8..8) {
            let mut bytes = logs(&resources);
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
                if let Ok(items) = check(&LOGS, &bytes) {
                    prop_assert_eq!(count(&LOGS, Reader::new(&bytes, 0, bytes.len())), items);
                }
            }
        }

        #[test]
        fn what_is_dropped_is_gone_and_all_else_is_as_it_was(
            resources in proptest::collection::vec(proptest::collection::vec(1usize..4, 1..4), 0..4), keep: Vec<bool>,
        ) {
            let bytes = logs(&resources);
            let items = resources.iter().flatten().sum::<usize>();
            prop_assert_eq!(without(&bytes, &[]), bytes.clone());
            let keeps = |number: usize| keep.get(number).copied().unwrap_or(true);
            let dropped: Vec<usize> = (0..items).filter(|number| !keeps(*number)).collect();
            let left = without(&bytes, &dropped);
            prop_assert_eq!(check(&LOGS, &left), Ok(items - dropped.len()));
            let (times, schemas, scopes) = seen(&LOGS, &left);
            let expected: Vec<u64> = (0..items).filter(|number| keeps(*number)).map(|number| number as u64 + 1).collect();
            prop_assert_eq!(times, expected);
            let mut number = 0;
            let kept: Vec<Vec<bool>> = resources
                .iter()
                .map(|scopes| {
                    let scopes = scopes.iter().map(|records| {
                        number += records;
                        (number - records..number).any(keeps)
                    });
                    scopes.collect()
                })
                .collect();
            prop_assert_eq!(schemas, kept.iter().filter(|scopes| scopes.contains(&true)).count());
            prop_assert_eq!(scopes, kept.iter().flatten().filter(|kept| **kept).count());
        }

        #[test]
        fn what_is_cut_is_all_there_on_one_side(
            resources in proptest::collection::vec(proptest::collection::vec(0usize..4, 0..4), 0..4), after: proptest::sample::Index,
        ) {
            let bytes = logs(&resources);
            let items = resources.iter().flatten().sum::<usize>();
            prop_assert_eq!(check(&LOGS, &bytes), Ok(items));
            if items < 2 {
                return Ok(());
            }
            let after = 1 + after.index(items - 1);
            let Cut { front, rest } = cut(&LOGS, &bytes, after);
            prop_assert_eq!(check(&LOGS, &front), Ok(after));
            prop_assert_eq!(check(&LOGS, &rest), Ok(items - after));
            let (mut times, schemas, scopes) = seen(&LOGS, &front);
            let (more, more_schemas, more_scopes) = seen(&LOGS, &rest);
            times.extend(more);
            prop_assert_eq!(times, (1..=items as u64).collect::<Vec<_>>());
            let all_scopes = resources.iter().map(Vec::len).sum::<usize>();
            prop_assert!((resources.len()..=resources.len() + 1).contains(&(schemas + more_schemas)));
            prop_assert!((all_scopes..=all_scopes + 1).contains(&(scopes + more_scopes)));
        }
    }
}
