//! The protocol buffers encoding, as far as the messages here need it: a walk over the fields of a message, and writing.

use std::fmt;

use corten_signal::labels::{put_varint, varint_len};

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtoError {
    /// The message ends within a field.
    Truncated,
    /// A number of more than 64 bits.
    Overflow,
    /// Field number 0, or beyond 2^29.
    IllegalField,
    /// A wire type that does not exist or that is no longer in use.
    IllegalWireType(u8),
    /// A field has another wire type than its definition says.
    WrongWireType(u32),
    /// A time before the year 1 or after the year 9999, or with nanoseconds that are no part of a second.
    InvalidTime,
}

impl fmt::Display for ProtoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProtoError::Truncated => f.write_str("unexpected end of the message"),
            ProtoError::Overflow => f.write_str("a number is longer than 64 bits"),
            ProtoError::IllegalField => f.write_str("illegal field number"),
            ProtoError::IllegalWireType(wire_type) => write!(f, "illegal wire type {wire_type}"),
            ProtoError::WrongWireType(field) => write!(f, "wrong wire type for field {field}"),
            ProtoError::InvalidTime => f.write_str("a time is out of range"),
        }
    }
}

impl std::error::Error for ProtoError {}

/// The fields of a message, in their order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(message: &'a [u8]) -> Self {
        Fields { rest: message }
    }

    /// The next field, if there is one, and the bytes that it is written in.
    pub(crate) fn next_raw(&mut self) -> Result<Option<(Field<'a>, &'a [u8])>, ProtoError> {
        let before = self.rest;
        let field = self.next()?;
        Ok(field.map(|field| (field, &before[..before.len() - self.rest.len()])))
    }

    /// The next field, if there is one.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<Field<'a>>, ProtoError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = take_varint(&mut self.rest)?;
        let number =
            u32::try_from(tag >> 3).ok().filter(|n| (1..1 << 29).contains(n)).ok_or(ProtoError::IllegalField)?;
        let value = match (tag & 7) as u8 {
            0 => Value::Varint(take_varint(&mut self.rest)?),
            1 => Value::Fixed64(u64::from_le_bytes(take_array(&mut self.rest)?)),
            2 => {
                let len = take_varint(&mut self.rest)?;
                let len = usize::try_from(len).map_err(|_| ProtoError::Truncated)?;
                let (body, rest) = self.rest.split_at_checked(len).ok_or(ProtoError::Truncated)?;
                self.rest = rest;
                Value::Bytes(body)
            }
            5 => {
                take_array::<4>(&mut self.rest)?;
                Value::Fixed32
            }
            other => return Err(ProtoError::IllegalWireType(other)),
        };
        Ok(Some(Field { number, value }))
    }
}

/// A field of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field<'a> {
    pub(crate) number: u32,
    value: Value<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    /// None of the messages has a field of 32 bits.
    Fixed32,
}

impl<'a> Field<'a> {
    pub(crate) fn bytes(&self) -> Result<&'a [u8], ProtoError> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(self.wrong()),
        }
    }

    pub(crate) fn message(&self) -> Result<Fields<'a>, ProtoError> {
        self.bytes().map(Fields::new)
    }

    pub(crate) fn double(&self) -> Result<f64, ProtoError> {
        match self.value {
            Value::Fixed64(bits) => Ok(f64::from_bits(bits)),
            _ => Err(self.wrong()),
        }
    }

    pub(crate) fn fixed64(&self) -> Result<u64, ProtoError> {
        match self.value {
            Value::Fixed64(value) => Ok(value),
            _ => Err(self.wrong()),
        }
    }

    pub(crate) fn uint64(&self) -> Result<u64, ProtoError> {
        match self.value {
            Value::Varint(value) => Ok(value),
            _ => Err(self.wrong()),
        }
    }

    pub(crate) fn int64(&self) -> Result<i64, ProtoError> {
        self.uint64().map(|v| v as i64)
    }

    /// As all decoders do, the upper half of a number that is too long is cut off.
    pub(crate) fn uint32(&self) -> Result<u32, ProtoError> {
        self.uint64().map(|v| v as u32)
    }

    pub(crate) fn sint32(&self) -> Result<i32, ProtoError> {
        self.uint64().map(|v| unzigzag(u64::from(v as u32)) as i32)
    }

    /// Adds the numbers of a repeated field to `out`, be they packed or not.
    pub(crate) fn push_sint64s(&self, out: &mut Vec<i64>) -> Result<(), ProtoError> {
        self.each_varint(|v| out.push(unzigzag(v)))
    }

    /// Adds the numbers of a repeated field to `out`, be they packed or not.
    pub(crate) fn push_uint32s(&self, out: &mut Vec<u32>) -> Result<(), ProtoError> {
        self.each_varint(|v| out.push(v as u32))
    }

    /// Adds the numbers of a repeated field to `out`, be they packed or not.
    pub(crate) fn push_doubles(&self, out: &mut Vec<f64>) -> Result<(), ProtoError> {
        match self.value {
            Value::Fixed64(bits) => out.push(f64::from_bits(bits)),
            Value::Bytes(packed) => {
                let (numbers, rest) = packed.as_chunks::<8>();
                if !rest.is_empty() {
                    return Err(ProtoError::Truncated);
                }
                out.extend(numbers.iter().map(|n| f64::from_le_bytes(*n)));
            }
            _ => return Err(self.wrong()),
        }
        Ok(())
    }

    fn each_varint(&self, mut take: impl FnMut(u64)) -> Result<(), ProtoError> {
        match self.value {
            Value::Varint(value) => take(value),
            Value::Bytes(mut packed) => {
                while !packed.is_empty() {
                    take(take_varint(&mut packed)?);
                }
            }
            _ => return Err(self.wrong()),
        }
        Ok(())
    }

    /// Name and value of a message that has these two texts, as labels are in all formats.
    #[inline]
    pub(crate) fn pair(&self) -> Result<(&'a [u8], &'a [u8]), ProtoError> {
        let (mut name, mut value) = (&b""[..], &b""[..]);
        let mut fields = self.message()?;
        while let Some(field) = fields.next()? {
            match field.number {
                1 => name = field.bytes()?,
                2 => value = field.bytes()?,
                _ => {}
            }
        }
        Ok((name, value))
    }

    fn wrong(&self) -> ProtoError {
        ProtoError::WrongWireType(self.number)
    }
}

/// Takes a variable-length integer from the front.
#[inline]
pub(crate) fn take_varint(bytes: &mut &[u8]) -> Result<u64, ProtoError> {
    match bytes.split_first() {
        // Tags and most lengths have one byte.
        Some((&byte, rest)) if byte < 0x80 => {
            *bytes = rest;
            Ok(u64::from(byte))
        }
        _ => take_long_varint(bytes),
    }
}

fn take_long_varint(bytes: &mut &[u8]) -> Result<u64, ProtoError> {
    let mut value = 0u64;
    for (at, &byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            *bytes = &bytes[at + 1..];
            // The tenth byte has one bit.
            return if at == 9 && byte > 1 { Err(ProtoError::Overflow) } else { Ok(value) };
        }
    }
    Err(if bytes.len() < 10 { ProtoError::Truncated } else { ProtoError::Overflow })
}

fn take_array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], ProtoError> {
    let (array, rest) = bytes.split_first_chunk::<N>().ok_or(ProtoError::Truncated)?;
    *bytes = rest;
    Ok(*array)
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The wire type of variable-length integers.
const VARINT: u32 = 0;
/// The wire type of doubles.
const FIXED64: u32 = 1;
/// The wire type of strings, messages and packed lists.
const BYTES: u32 = 2;

fn put_tag(out: &mut Vec<u8>, field: u32, wire_type: u32) {
    put_varint(out, u64::from(field << 3 | wire_type));
}

/// Writes a number, unless it is 0.
pub(crate) fn put_uint64(out: &mut Vec<u8>, field: u32, value: u64) {
    if value != 0 {
        put_uint64_always(out, field, value);
    }
}

/// Writes a number even if it is 0: where its presence says something.
pub(crate) fn put_uint64_always(out: &mut Vec<u8>, field: u32, value: u64) {
    put_tag(out, field, VARINT);
    put_varint(out, value);
}

/// Writes a number, unless it is 0.
pub(crate) fn put_int64(out: &mut Vec<u8>, field: u32, value: i64) {
    put_uint64(out, field, value as u64);
}

/// Writes a number, unless it is 0.
pub(crate) fn put_sint32(out: &mut Vec<u8>, field: u32, value: i32) {
    put_uint64(out, field, zigzag(i64::from(value)) & u64::from(u32::MAX));
}

/// Writes a double, unless it is 0.
pub(crate) fn put_double(out: &mut Vec<u8>, field: u32, value: f64) {
    if value.to_bits() != 0 {
        put_double_always(out, field, value);
    }
}

/// Writes a double even if it is 0: where its presence says something.
pub(crate) fn put_double_always(out: &mut Vec<u8>, field: u32, value: f64) {
    put_tag(out, field, FIXED64);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Writes a string, unless it is empty.
pub(crate) fn put_str(out: &mut Vec<u8>, field: u32, value: &str) {
    if !value.is_empty() {
        put_bytes(out, field, value.as_bytes());
    }
}

/// Writes a string or message.
pub(crate) fn put_bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    put_tag(out, field, BYTES);
    put_varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// Writes a message whose fields `write` writes.
pub(crate) fn put_message(out: &mut Vec<u8>, field: u32, write: impl FnOnce(&mut Vec<u8>)) {
    put_tag(out, field, BYTES);
    let start = out.len();
    write(out);
    // The length stands in front and is known now. Messages are short, so that moving them costs little.
    let len = out.len() - start;
    let width = varint_len(len as u64);
    out.resize(start + width + len, 0);
    out.copy_within(start..start + len, start + width);
    let mut rest = len as u64;
    for byte in &mut out[start..start + width] {
        *byte = (rest & 0x7f) as u8 | 0x80;
        rest >>= 7;
    }
    out[start + width - 1] &= 0x7f;
}

/// Writes a packed list, unless it is empty.
pub(crate) fn put_sint64s(out: &mut Vec<u8>, field: u32, values: &[i64]) {
    if !values.is_empty() {
        put_message(out, field, |out| {
            for value in values {
                put_varint(out, zigzag(*value));
            }
        });
    }
}

/// Writes a packed list, unless it is empty.
pub(crate) fn put_doubles(out: &mut Vec<u8>, field: u32, values: &[f64]) {
    if !values.is_empty() {
        put_tag(out, field, BYTES);
        put_varint(out, 8 * values.len() as u64);
        for value in values {
            out.extend_from_slice(&value.to_le_bytes());
        }
    }
}

#[cfg(test)]
pub(crate) fn from_hex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn first(message: &[u8]) -> Result<Option<Field<'_>>, ProtoError> {
        Fields::new(message).next()
    }

    #[test]
    fn broken_messages_are_refused() {
        for (message, want) in [
            (&b"\x08"[..], ProtoError::Truncated),
            (b"\x08\x80", ProtoError::Truncated),
            (b"\x09\0\0\0\0\0\0\0", ProtoError::Truncated),
            (b"\x0d\0\0\0", ProtoError::Truncated),
            (b"\x0a\x02x", ProtoError::Truncated),
            (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", ProtoError::Truncated),
            (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", ProtoError::Overflow),
            (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", ProtoError::Overflow),
            (b"\x00\x01", ProtoError::IllegalField),
            (b"\xf8\xff\xff\xff\xff\x01\x00", ProtoError::IllegalField),
            (b"\x0b", ProtoError::IllegalWireType(3)),
            (b"\x0c", ProtoError::IllegalWireType(4)),
            (b"\x0e", ProtoError::IllegalWireType(6)),
        ] {
            assert_eq!(first(message).unwrap_err(), want, "{message:x?}");
        }
        let varint = first(b"\x08\x01").unwrap().unwrap();
        assert_eq!(varint.double(), Err(ProtoError::WrongWireType(1)));
        assert_eq!(varint.bytes(), Err(ProtoError::WrongWireType(1)));
        assert_eq!(varint.push_doubles(&mut Vec::new()), Err(ProtoError::WrongWireType(1)));
        let fixed32 = first(b"\x0d\0\0\0\0").unwrap().unwrap();
        assert_eq!(fixed32.uint64(), Err(ProtoError::WrongWireType(1)));
        assert_eq!(
            first(b"\x0a\x03\0\0\0").unwrap().unwrap().push_doubles(&mut Vec::new()),
            Err(ProtoError::Truncated)
        );
        assert_eq!(first(b"\x0a\x01\x80").unwrap().unwrap().push_sint64s(&mut Vec::new()), Err(ProtoError::Truncated));
    }

    #[test]
    fn a_zero_is_not_written() {
        let mut out = Vec::new();
        put_uint64(&mut out, 1, 0);
        put_sint32(&mut out, 2, 0);
        put_double(&mut out, 3, 0.0);
        put_str(&mut out, 4, "");
        put_sint64s(&mut out, 5, &[]);
        put_doubles(&mut out, 6, &[]);
        assert!(out.is_empty());
        put_uint64_always(&mut out, 1, 0);
        put_double_always(&mut out, 16, 0.0);
        assert_eq!(out, b"\x08\0\x81\x01\0\0\0\0\0\0\0\0");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            unsigned in 1u64.., signed: i64, small: i32, double: f64, text in "\\PC{1,300}",
            deltas in proptest::collection::vec(any::<i64>(), 1..99), doubles in proptest::collection::vec(any::<f64>(), 1..9),
        ) {
            prop_assume!(signed != 0 && small != 0 && double.to_bits() != 0);
            let mut out = Vec::new();
            put_message(&mut out, 1, |out| {
                put_uint64(out, 1, unsigned);
                put_int64(out, 2, signed);
                put_sint32(out, 3, small);
                put_double(out, 4, double);
                put_str(out, 5, &text);
                put_sint64s(out, 6, &deltas);
                put_doubles(out, 2000, &doubles);
            });
            let mut fields = Fields::new(&out);
            let mut message = fields.next().unwrap().unwrap().message().unwrap();
            prop_assert!(fields.next().unwrap().is_none());
            let mut next = || message.next().unwrap().unwrap();
            prop_assert_eq!(next().uint64(), Ok(unsigned));
            prop_assert_eq!(next().int64(), Ok(signed));
            prop_assert_eq!(next().sint32(), Ok(small));
            prop_assert_eq!(next().double().map(f64::to_bits), Ok(double.to_bits()));
            prop_assert_eq!(next().bytes(), Ok(text.as_bytes()));
            let (mut deltas_back, mut doubles_back) = (Vec::new(), Vec::new());
            next().push_sint64s(&mut deltas_back).unwrap();
            let last = next();
            prop_assert_eq!(last.number, 2000);
            last.push_doubles(&mut doubles_back).unwrap();
            prop_assert_eq!(deltas_back, deltas);
            let bits = |v: &[f64]| v.iter().map(|d| d.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&doubles_back), bits(&doubles));
        }

        #[test]
        fn no_bytes_make_it_panic(message: Vec<u8>) {
            let mut fields = Fields::new(&message);
            while let Ok(Some(field)) = fields.next() {
                let _ = (field.bytes(), field.double(), field.uint64(), field.sint32(), field.uint32());
                let _ = field.push_sint64s(&mut Vec::new());
                let _ = field.push_doubles(&mut Vec::new());
                let _ = field.push_uint32s(&mut Vec::new());
            }
        }
    }
}
