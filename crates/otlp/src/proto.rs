//! The protocol buffers encoding, read in place and written from the end to the front.
//!
//! A message is a field of another one with its length before it. Whoever writes from the back knows the length when its
//! turn comes, so that nothing is measured first and nothing is moved afterwards.

use std::fmt;

use corten_signal::labels::{put_varint, varint_len};

/// The wire type of variable-length integers.
pub(crate) const VARINT: u32 = 0;
/// The wire type of 64 bits.
pub(crate) const FIXED64: u32 = 1;
/// The wire type of strings, bytes, messages and packed lists.
pub(crate) const BYTES: u32 = 2;
/// The wire type of 32 bits.
pub(crate) const FIXED32: u32 = 5;

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The message ends within a field.
    Truncated,
    /// A number of more than 64 bits.
    Overflow,
    /// Field number 0, or beyond 2^29.
    IllegalField,
    /// A wire type that does not exist or that is no longer in use.
    IllegalWireType(u8),
    /// A field has another wire type than its definition says.
    WrongWireType {
        /// The message that the field is in.
        message: &'static str,
        /// The field's number.
        field: u32,
    },
    /// An id that has neither its length nor none.
    WrongIdLength {
        /// What it identifies.
        id: &'static str,
        /// How many bytes it has.
        len: usize,
    },
    /// Messages within messages beyond what anybody can mean.
    TooDeep,
    /// The message is longer than can be addressed.
    TooLong,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::Truncated => f.write_str("unexpected end of the message"),
            Malformed::Overflow => f.write_str("a number is longer than 64 bits"),
            Malformed::IllegalField => f.write_str("illegal field number"),
            Malformed::IllegalWireType(wire_type) => write!(f, "illegal wire type {wire_type}"),
            Malformed::WrongWireType { message, field } => write!(f, "wrong wire type for field {field} of {message}"),
            Malformed::WrongIdLength { id, len } => write!(f, "a {id} has {len} bytes"),
            Malformed::TooDeep => f.write_str("the message is nested too deeply"),
            Malformed::TooLong => f.write_str("the message is longer than 1 GiB"),
        }
    }
}

impl std::error::Error for Malformed {}

/// Reads the fields of a message that lies somewhere in a buffer. Places are those in the buffer.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    buffer: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads what lies between two places of a buffer.
    pub(crate) fn new(buffer: &'a [u8], start: usize, end: usize) -> Self {
        Reader { buffer: &buffer[..end], at: start }
    }

    /// Whether there is nothing more.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.at >= self.buffer.len()
    }

    /// Where it is.
    #[inline]
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// The next field's number and wire type, if there is one.
    #[inline]
    pub(crate) fn field(&mut self) -> Result<Option<(u32, u32)>, Malformed> {
        if self.at >= self.buffer.len() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = tag >> 3;
        if number == 0 || number >= 1 << 29 {
            return Err(Malformed::IllegalField);
        }
        Ok(Some((number as u32, (tag & 7) as u32)))
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, Malformed> {
        match self.buffer.get(self.at) {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Ok(u64::from(byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, Malformed> {
        let bytes = &self.buffer[self.at.min(self.buffer.len())..];
        let mut value = 0u64;
        for (at, &byte) in bytes.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                self.at += at + 1;
                // The tenth byte has one bit.
                return if at == 9 && byte > 1 { Err(Malformed::Overflow) } else { Ok(value) };
            }
        }
        Err(if bytes.len() < 10 { Malformed::Truncated } else { Malformed::Overflow })
    }

    #[inline]
    pub(crate) fn fixed64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    #[inline]
    pub(crate) fn fixed32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    #[inline]
    pub(crate) fn double(&mut self) -> Result<f64, Malformed> {
        self.array().map(f64::from_le_bytes)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let bytes = self.buffer.get(self.at..).and_then(<[u8]>::first_chunk::<N>).ok_or(Malformed::Truncated)?;
        self.at += N;
        Ok(*bytes)
    }

    /// The place of a string, message or list.
    #[inline]
    pub(crate) fn bytes(&mut self) -> Result<(usize, usize), Malformed> {
        let len = self.varint()?;
        let start = self.at;
        let left = self.buffer.len() - start;
        if len > left as u64 {
            return Err(Malformed::Truncated);
        }
        self.at = start + len as usize;
        Ok((start, self.at))
    }

    /// An id. One of another length is none.
    #[inline]
    pub(crate) fn id<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (start, end) = self.bytes()?;
        Ok(self.buffer[start..end].try_into().unwrap_or([0; N]))
    }

    /// The same as [`bytes`](Self::bytes), as a reader of the message there.
    #[inline]
    pub(crate) fn message(&mut self) -> Result<Reader<'a>, Malformed> {
        let (start, end) = self.bytes()?;
        Ok(Reader { buffer: &self.buffer[..end], at: start })
    }

    /// Passes over a field's value.
    pub(crate) fn skip(&mut self, wire_type: u32) -> Result<(), Malformed> {
        match wire_type {
            VARINT => self.varint().map(|_| ()),
            FIXED64 => self.fixed64().map(|_| ()),
            BYTES => self.bytes().map(|_| ()),
            FIXED32 => self.fixed32().map(|_| ()),
            other => Err(Malformed::IllegalWireType(other as u8)),
        }
    }
}

/// Writes what stands before a string, a message or a list of so many bytes.
#[inline]
pub(crate) fn put_head(out: &mut Vec<u8>, field: u32, len: usize) {
    put_varint(out, u64::from(field << 3 | BYTES));
    put_varint(out, len as u64);
}

/// Writes from the end to the front. What is written first stands last.
pub(crate) struct Back {
    buffer: Vec<u8>,
    at: usize,
}

impl Back {
    /// A writer that grows beyond `capacity` bytes when it has to.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        let capacity = capacity.max(64);
        Back { buffer: vec![0; capacity], at: capacity }
    }

    /// How much has been written.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.buffer.len() - self.at
    }

    /// What has been written.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        let len = self.len();
        self.buffer.copy_within(self.at.., 0);
        self.buffer.truncate(len);
        self.buffer
    }

    #[inline]
    fn take(&mut self, len: usize) -> &mut [u8] {
        if self.at < len {
            self.grow(len);
        }
        let end = self.at;
        self.at -= len;
        &mut self.buffer[self.at..end]
    }

    #[cold]
    fn grow(&mut self, len: usize) {
        let old = self.buffer.len();
        let new = (old * 2).max(old + len);
        let mut buffer = vec![0; new];
        buffer[new - self.len()..].copy_from_slice(&self.buffer[self.at..]);
        self.at += new - old;
        self.buffer = buffer;
    }

    #[inline]
    pub(crate) fn varint(&mut self, value: u64) {
        if value < 0x80 {
            self.take(1)[0] = value as u8;
            return;
        }
        let width = varint_len(value);
        let mut rest = value;
        let out = self.take(width);
        for byte in &mut *out {
            *byte = rest as u8 | 0x80;
            rest >>= 7;
        }
        out[width - 1] &= 0x7f;
    }

    #[inline]
    fn tag(&mut self, field: u32, wire_type: u32) {
        self.varint(u64::from(field << 3 | wire_type));
    }

    /// Bytes without a tag.
    #[inline]
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.take(bytes.len()).copy_from_slice(bytes);
    }

    /// A string or bytes, also if empty.
    #[inline]
    pub(crate) fn bytes_always(&mut self, field: u32, bytes: &[u8]) {
        self.raw(bytes);
        self.varint(bytes.len() as u64);
        self.tag(field, BYTES);
    }

    /// A string or bytes, unless empty.
    #[inline]
    pub(crate) fn bytes(&mut self, field: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.bytes_always(field, bytes);
        }
    }

    /// A number even if it is 0: where its presence says something.
    #[inline]
    pub(crate) fn varint_always(&mut self, field: u32, value: u64) {
        self.varint(value);
        self.tag(field, VARINT);
    }

    /// A number, unless it is 0.
    #[inline]
    pub(crate) fn uint(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.varint_always(field, value);
        }
    }

    /// 64 bits even if they are 0: where their presence says something.
    #[inline]
    pub(crate) fn fixed64_always(&mut self, field: u32, value: u64) {
        self.raw(&value.to_le_bytes());
        self.tag(field, FIXED64);
    }

    /// 64 bits, unless they are 0.
    #[inline]
    pub(crate) fn fixed64(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.fixed64_always(field, value);
        }
    }

    /// 32 bits, unless they are 0.
    #[inline]
    pub(crate) fn fixed32(&mut self, field: u32, value: u32) {
        if value != 0 {
            self.raw(&value.to_le_bytes());
            self.tag(field, FIXED32);
        }
    }

    /// A message whose fields `write` writes, the last one first.
    #[inline]
    pub(crate) fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        let before = self.len();
        write(self);
        let len = self.len() - before;
        self.varint(len as u64);
        self.tag(field, BYTES);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn first(message: &[u8]) -> Result<(), Malformed> {
        let mut reader = Reader::new(message, 0, message.len());
        let (_, wire_type) = reader.field()?.unwrap();
        reader.skip(wire_type)
    }

    #[test]
    fn broken_messages_are_refused() {
        for (message, want) in [
            (&b"\x08"[..], Malformed::Truncated),
            (b"\x08\x80", Malformed::Truncated),
            (b"\x09\0\0\0\0\0\0\0", Malformed::Truncated),
            (b"\x0d\0\0\0", Malformed::Truncated),
            (b"\x0a\x02x", Malformed::Truncated),
            (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", Malformed::Truncated),
            (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", Malformed::Overflow),
            (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", Malformed::Overflow),
            (b"\x00\x01", Malformed::IllegalField),
            (b"\xf8\xff\xff\xff\xff\x01\x00", Malformed::IllegalField),
            (b"\x0b", Malformed::IllegalWireType(3)),
            (b"\x0e", Malformed::IllegalWireType(6)),
        ] {
            assert_eq!(first(message), Err(want), "{message:x?}");
        }
    }

    #[test]
    fn a_zero_is_not_written() {
        let mut out = Back::with_capacity(0);
        out.uint(1, 0);
        out.fixed64(2, 0);
        out.fixed32(3, 0);
        out.bytes(4, b"");
        assert_eq!(out.len(), 0);
        out.varint_always(1, 0);
        out.fixed64_always(16, 0);
        assert_eq!(out.finish(), b"\x81\x01\0\0\0\0\0\0\0\0\x08\0");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            number in 1u64.., small in 1u32.., field in 1u32..(1 << 20), text in proptest::collection::vec(any::<u8>(), 1..300),
            times in 1usize..20,
        ) {
            let mut out = Back::with_capacity(1);
            for _ in 0..times {
                out.message(field, |out| {
                    out.bytes(4, &text);
                    out.fixed32(3, small);
                    out.fixed64(2, number);
                    out.uint(1, number);
                });
            }
            let bytes = out.finish();
            let mut reader = Reader::new(&bytes, 0, bytes.len());
            for _ in 0..times {
                prop_assert_eq!(reader.field().unwrap(), Some((field, BYTES)));
                let mut message = reader.message().unwrap();
                prop_assert_eq!(message.field().unwrap(), Some((1, VARINT)));
                prop_assert_eq!(message.varint(), Ok(number));
                prop_assert_eq!(message.field().unwrap(), Some((2, FIXED64)));
                prop_assert_eq!(message.fixed64(), Ok(number));
                prop_assert_eq!(message.field().unwrap(), Some((3, FIXED32)));
                prop_assert_eq!(message.fixed32(), Ok(small));
                prop_assert_eq!(message.field().unwrap(), Some((4, BYTES)));
                let (start, end) = message.bytes().unwrap();
                prop_assert_eq!(&bytes[start..end], &*text);
                prop_assert_eq!(message.field(), Ok(None));
            }
            prop_assert_eq!(reader.field(), Ok(None));
        }

        #[test]
        fn no_bytes_make_it_panic(message: Vec<u8>) {
            let mut reader = Reader::new(&message, 0, message.len());
            while let Ok(Some((_, wire_type))) = reader.field() {
                if reader.skip(wire_type).is_err() {
                    break;
                }
            }
        }
    }
}
