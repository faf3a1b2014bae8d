//! Reading Apache Thrift, in its binary and its compact protocol.
//!
//! Formats: `thrift-binary-protocol.md` and `thrift-compact-protocol.md` of the Thrift project.

use std::fmt;

/// How messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Numbers have their full width.
    Binary,
    /// Numbers have the width that they need.
    Compact,
}

/// What is wrong with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ThriftError {
    /// It ends within a value.
    Truncated,
    /// A number is longer than 64 bits.
    Overflow,
    /// A length is negative, or larger than what follows.
    Length,
    /// A type that does not exist.
    UnknownType(u8),
    /// Values lie within values without end.
    TooDeep,
    /// A field that has to be there is not.
    Missing(&'static str),
    /// It is no call of the one method that is known.
    Call(String),
}

impl fmt::Display for ThriftError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ThriftError::Truncated => f.write_str("unexpected end of the message"),
            ThriftError::Overflow => f.write_str("a number is longer than 64 bits"),
            ThriftError::Length => f.write_str("a length is wrong"),
            ThriftError::UnknownType(kind) => write!(f, "unknown type {kind}"),
            ThriftError::TooDeep => f.write_str("values lie too deep within values"),
            ThriftError::Missing(field) => write!(f, "Required field {field} is not set"),
            ThriftError::Call(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for ThriftError {}

/// How deep values may lie within values that are passed over.
const DEPTH_MAX: usize = 64;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    Byte,
    I16,
    I32,
    I64,
    Double,
    Bytes,
    Struct,
    Map,
    /// Lists and sets, which are written alike.
    List,
    /// What has a fixed length that is not looked at.
    Uuid,
}

/// The beginning of a field.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(crate) id: i16,
    pub(crate) kind: Kind,
    /// The value of a truth value, where it stands in the beginning.
    truth: Option<bool>,
}

/// Reads values one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    protocol: Protocol,
}

type Result<T> = std::result::Result<T, ThriftError>;

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], protocol: Protocol) -> Self {
        Reader { rest: bytes, protocol }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(ThriftError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(ThriftError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(ThriftError::Overflow)
    }

    fn zigzag(&mut self) -> Result<i64> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A length that is not more than what follows.
    fn len(&mut self) -> Result<usize> {
        let len = match self.protocol {
            Protocol::Binary => i64::from(i32::from_be_bytes(self.array()?)),
            Protocol::Compact => i64::try_from(self.varint()?).map_err(|_| ThriftError::Length)?,
        };
        usize::try_from(len).ok().filter(|len| *len <= self.rest.len()).ok_or(ThriftError::Length)
    }

    fn kind(&self, byte: u8) -> Result<Kind> {
        Ok(match (self.protocol, byte) {
            (Protocol::Binary, 2) | (Protocol::Compact, 1 | 2) => Kind::Bool,
            (_, 3) => Kind::Byte,
            (Protocol::Binary, 4) | (Protocol::Compact, 7) => Kind::Double,
            (Protocol::Binary, 6) | (Protocol::Compact, 4) => Kind::I16,
            (Protocol::Binary, 8) | (Protocol::Compact, 5) => Kind::I32,
            (Protocol::Binary, 10) | (Protocol::Compact, 6) => Kind::I64,
            (Protocol::Binary, 11) | (Protocol::Compact, 8) => Kind::Bytes,
            (_, 12) => Kind::Struct,
            (Protocol::Binary, 13) | (Protocol::Compact, 11) => Kind::Map,
            (Protocol::Binary, 14 | 15) | (Protocol::Compact, 9 | 10) => Kind::List,
            (Protocol::Binary, 16) | (Protocol::Compact, 13) => Kind::Uuid,
            _ => return Err(ThriftError::UnknownType(byte)),
        })
    }

    /// The next field of a structure; nothing at its end. `last` is the id of the field before, 0 at the beginning.
    pub(crate) fn field(&mut self, last: &mut i16) -> Result<Option<Field>> {
        let [head] = self.array()?;
        if head == 0 {
            return Ok(None);
        }
        let field = match self.protocol {
            Protocol::Binary => Field { kind: self.kind(head)?, id: i16::from_be_bytes(self.array()?), truth: None },
            Protocol::Compact => {
                let kind = head & 0x0f;
                let id = match head >> 4 {
                    0 => self.zigzag()? as i16,
                    delta => last.wrapping_add(i16::from(delta)),
                };
                Field { kind: self.kind(kind)?, id, truth: (kind < 3).then_some(kind == 1) }
            }
        };
        *last = field.id;
        Ok(Some(field))
    }

    /// The truth value of a field.
    pub(crate) fn bool(&mut self, field: Field) -> Result<bool> {
        match field.truth {
            Some(truth) => Ok(truth),
            None => Ok(self.array()? == [1]),
        }
    }

    pub(crate) fn i16(&mut self) -> Result<i16> {
        match self.protocol {
            Protocol::Binary => Ok(i16::from_be_bytes(self.array()?)),
            Protocol::Compact => self.zigzag().map(|value| value as i16),
        }
    }

    pub(crate) fn i32(&mut self) -> Result<i32> {
        match self.protocol {
            Protocol::Binary => Ok(i32::from_be_bytes(self.array()?)),
            Protocol::Compact => self.zigzag().map(|value| value as i32),
        }
    }

    pub(crate) fn i64(&mut self) -> Result<i64> {
        match self.protocol {
            Protocol::Binary => Ok(i64::from_be_bytes(self.array()?)),
            Protocol::Compact => self.zigzag(),
        }
    }

    pub(crate) fn double(&mut self) -> Result<f64> {
        match self.protocol {
            Protocol::Binary => Ok(f64::from_be_bytes(self.array()?)),
            Protocol::Compact => Ok(f64::from_le_bytes(self.array()?)),
        }
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8]> {
        let len = self.len()?;
        self.take(len)
    }

    /// The beginning of a list: what it holds, and how much of it. Each has a byte at least.
    pub(crate) fn list(&mut self) -> Result<(Kind, usize)> {
        let [head] = self.array()?;
        match self.protocol {
            Protocol::Binary => Ok((self.kind(head)?, self.len()?)),
            Protocol::Compact => {
                let len = match head >> 4 {
                    15 => self.len()?,
                    len => usize::from(len),
                };
                if len > self.rest.len() {
                    return Err(ThriftError::Length);
                }
                Ok((self.kind(head & 0x0f)?, len))
            }
        }
    }

    /// Reads a list of structures. One of others is passed over.
    pub(crate) fn structs<T>(&mut self, mut read: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let (kind, len) = self.list()?;
        let mut all = Vec::new();
        for _ in 0..len {
            if kind == Kind::Struct {
                all.push(read(self)?);
            } else {
                self.skip_element(kind, 0)?;
            }
        }
        Ok(all)
    }

    /// Passes over the value of a field.
    pub(crate) fn skip(&mut self, field: Field) -> Result<()> {
        if field.truth.is_some() { Ok(()) } else { self.skip_element(field.kind, 0) }
    }

    fn skip_element(&mut self, kind: Kind, depth: usize) -> Result<()> {
        if depth > DEPTH_MAX {
            return Err(ThriftError::TooDeep);
        }
        match kind {
            Kind::Bool | Kind::Byte => self.take(1).map(drop),
            Kind::I16 => self.i16().map(drop),
            Kind::I32 => self.i32().map(drop),
            Kind::I64 => self.i64().map(drop),
            Kind::Double => self.take(8).map(drop),
            Kind::Uuid => self.take(16).map(drop),
            Kind::Bytes => self.bytes().map(drop),
            Kind::Struct => {
                let mut last = 0;
                while let Some(field) = self.field(&mut last)? {
                    if field.truth.is_none() {
                        self.skip_element(field.kind, depth + 1)?;
                    }
                }
                Ok(())
            }
            Kind::List => {
                let (kind, len) = self.list()?;
                (0..len).try_for_each(|_| self.skip_element(kind, depth + 1))
            }
            Kind::Map => {
                let (key, value, len) = self.map()?;
                (0..len).try_for_each(|_| {
                    self.skip_element(key, depth + 1)?;
                    self.skip_element(value, depth + 1)
                })
            }
        }
    }

    /// The beginning of a map: what its keys and values are, and how many there are.
    fn map(&mut self) -> Result<(Kind, Kind, usize)> {
        match self.protocol {
            Protocol::Binary => {
                let [key, value] = self.array()?;
                let len = self.len()?;
                // One that holds nothing need not say of what.
                if len == 0 { Ok((Kind::Byte, Kind::Byte, 0)) } else { Ok((self.kind(key)?, self.kind(value)?, len)) }
            }
            Protocol::Compact => {
                let len = self.len()?;
                if len == 0 {
                    return Ok((Kind::Byte, Kind::Byte, 0));
                }
                let [kinds] = self.array()?;
                Ok((self.kind(kinds >> 4)?, self.kind(kinds & 0x0f)?, len))
            }
        }
    }

    /// The beginning of a call: the name of the method. What it is called with follows as a structure.
    pub(crate) fn call(&mut self) -> Result<&'a [u8]> {
        /// Calls that are answered, and those that are not.
        const CALLS: [u8; 2] = [1, 4];
        let no_call = |kind: u8| ThriftError::Call(format!("a message of type {kind} is no call"));
        match self.protocol {
            Protocol::Compact => {
                let [id, head] = self.array()?;
                if id != 0x82 || head & 0x1f != 1 {
                    return Err(ThriftError::Call("the message is not in the compact protocol".to_owned()));
                }
                if !CALLS.contains(&(head >> 5)) {
                    return Err(no_call(head >> 5));
                }
                self.varint()?;
                self.bytes()
            }
            Protocol::Binary => {
                let head: [u8; 4] = self.array()?;
                let (name, kind) = match head {
                    [0x80, 1, _, kind] => (self.bytes()?, kind),
                    [first, ..] if first >= 0x80 => {
                        return Err(ThriftError::Call("the message is not in the binary protocol".to_owned()));
                    }
                    // The old way: the length of the name, the name, the type.
                    len => {
                        let len = usize::try_from(u32::from_be_bytes(len)).map_err(|_| ThriftError::Length)?;
                        let name = self.take(len)?;
                        let [kind] = self.array()?;
                        (name, kind)
                    }
                };
                if !CALLS.contains(&kind) {
                    return Err(no_call(kind));
                }
                self.array::<4>()?;
                Ok(name)
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// Writes what tests read.
    pub(crate) struct Writer {
        pub(crate) out: Vec<u8>,
        protocol: Protocol,
        last: Vec<i16>,
    }

    impl Writer {
        pub(crate) fn new(protocol: Protocol) -> Self {
            Writer { out: Vec::new(), protocol, last: vec![0] }
        }

        fn varint(&mut self, mut value: u64) {
            while value > 0x7f {
                self.out.push(value as u8 | 0x80);
                value >>= 7;
            }
            self.out.push(value as u8);
        }

        fn head(&mut self, id: i16, binary: u8, compact: u8) {
            match self.protocol {
                Protocol::Binary => {
                    self.out.push(binary);
                    self.out.extend(id.to_be_bytes());
                }
                Protocol::Compact => {
                    let last = self.last.last_mut().unwrap();
                    let delta = i32::from(id) - i32::from(*last);
                    *last = id;
                    if (1..16).contains(&delta) {
                        self.out.push((delta as u8) << 4 | compact);
                    } else {
                        self.out.push(compact);
                        self.number(i64::from(id), 2);
                    }
                }
            }
        }

        fn number(&mut self, value: i64, width: usize) {
            match self.protocol {
                Protocol::Binary => self.out.extend(&value.to_be_bytes()[8 - width..]),
                Protocol::Compact => self.varint(((value << 1) ^ (value >> 63)) as u64),
            }
        }

        pub(crate) fn bool(&mut self, id: i16, value: bool) {
            self.head(id, 2, if value { 1 } else { 2 });
            if self.protocol == Protocol::Binary {
                self.out.push(u8::from(value));
            }
        }

        pub(crate) fn i16(&mut self, id: i16, value: i16) {
            self.head(id, 6, 4);
            self.number(i64::from(value), 2);
        }

        pub(crate) fn i32(&mut self, id: i16, value: i32) {
            self.head(id, 8, 5);
            self.number(i64::from(value), 4);
        }

        pub(crate) fn i64(&mut self, id: i16, value: i64) {
            self.head(id, 10, 6);
            self.number(value, 8);
        }

        pub(crate) fn double(&mut self, id: i16, value: f64) {
            self.head(id, 4, 7);
            match self.protocol {
                Protocol::Binary => self.out.extend(value.to_be_bytes()),
                Protocol::Compact => self.out.extend(value.to_le_bytes()),
            }
        }

        pub(crate) fn bytes(&mut self, id: i16, value: &[u8]) {
            self.head(id, 11, 8);
            self.len(value.len());
            self.out.extend(value);
        }

        fn len(&mut self, len: usize) {
            match self.protocol {
                Protocol::Binary => self.out.extend((len as i32).to_be_bytes()),
                Protocol::Compact => self.varint(len as u64),
            }
        }

        /// The fields of a structure, and its end.
        pub(crate) fn inside(&mut self, write: impl FnOnce(&mut Self)) {
            self.last.push(0);
            write(self);
            self.last.pop();
            self.out.push(0);
        }

        pub(crate) fn structure(&mut self, id: i16, write: impl FnOnce(&mut Self)) {
            self.head(id, 12, 12);
            self.inside(write);
        }

        pub(crate) fn structs<T>(&mut self, id: i16, items: &[T], write: impl Fn(&mut Self, &T)) {
            self.head(id, 15, 9);
            self.bare_structs(items, write);
        }

        /// A list that is no field.
        pub(crate) fn bare_structs<T>(&mut self, items: &[T], write: impl Fn(&mut Self, &T)) {
            match self.protocol {
                Protocol::Binary => {
                    self.out.push(12);
                    self.len(items.len());
                }
                Protocol::Compact if items.len() < 15 => self.out.push((items.len() as u8) << 4 | 12),
                Protocol::Compact => {
                    self.out.push(0xfc);
                    self.varint(items.len() as u64);
                }
            }
            for item in items {
                self.inside(|out| write(out, item));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::testing::Writer;
    use super::*;

    const PROTOCOLS: [Protocol; 2] = [Protocol::Binary, Protocol::Compact];

    fn walk(bytes: &[u8], protocol: Protocol) -> Result<()> {
        Reader::new(bytes, protocol).skip_element(Kind::Struct, 0)
    }

    #[test]
    fn values_within_values_are_passed_over_but_not_without_end() {
        for protocol in PROTOCOLS {
            let nested = |depth: usize| {
                fn deeper(out: &mut Writer, depth: usize) {
                    if depth > 0 {
                        out.structs(300, &[()], |out, ()| deeper(out, depth - 1));
                    }
                }
                let mut out = Writer::new(protocol);
                out.inside(|out| deeper(out, depth));
                out.out
            };
            assert_eq!(walk(&nested(20), protocol), Ok(()));
            assert_eq!(walk(&nested(40), protocol), Err(ThriftError::TooDeep));
        }
    }

    #[test]
    fn a_length_that_cannot_be_is_refused_before_anything_is_made_of_it() {
        for (protocol, bytes) in [
            (Protocol::Binary, &[15, 0, 1, 12, 0x7f, 0xff, 0xff, 0xff][..]),
            (Protocol::Binary, &[11, 0, 1, 0xff, 0xff, 0xff, 0xff]),
            (Protocol::Binary, &[13, 0, 1, 11, 11, 0x7f, 0xff, 0xff, 0xff]),
            (Protocol::Compact, &[0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x0f]),
            (Protocol::Compact, &[0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
            (Protocol::Compact, &[0x1b, 0x7f, 0x88]),
        ] {
            assert_eq!(walk(bytes, protocol), Err(ThriftError::Length), "{bytes:?}");
        }
    }

    #[test]
    fn a_call_is_one_in_either_form() {
        for (protocol, bytes, want) in [
            (Protocol::Binary, &b"\x80\x01\0\x04\0\0\0\x01a\0\0\0\x07"[..], Ok(&b"a"[..])),
            (Protocol::Binary, b"\0\0\0\x01a\x01\0\0\0\x07", Ok(b"a")),
            (
                Protocol::Binary,
                b"\x80\x02\0\x04\0\0\0\x01a\0\0\0\x07",
                Err("the message is not in the binary protocol"),
            ),
            (Protocol::Binary, b"\x80\x01\0\x02\0\0\0\x01a\0\0\0\x07", Err("a message of type 2 is no call")),
            (Protocol::Compact, b"\x82\x81\x07\x01a", Ok(b"a")),
            (Protocol::Compact, b"\x82\x21\x07\x01a", Ok(b"a")),
            (Protocol::Compact, b"\x82\x82\x07\x01a", Err("the message is not in the compact protocol")),
            (Protocol::Compact, b"\x82\x61\x07\x01a", Err("a message of type 3 is no call")),
        ] {
            let got = Reader::new(bytes, protocol).call().map_err(|error| error.to_string());
            assert_eq!(got, want.map_err(str::to_owned), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            small: i16, whole: i32, long: i64, number in any::<f64>().prop_filter("equal to itself", |n| !n.is_nan()),
            text: Vec<u8>, truth: bool, gap in 1i16..300, count in 0usize..40,
        ) {
            for protocol in PROTOCOLS {
                let mut out = Writer::new(protocol);
                out.inside(|out| {
                    out.i16(gap, small);
                    out.i32(gap + 1, whole);
                    out.i64(2 * gap + 1, long);
                    out.double(2 * gap + 2, number);
                    out.bytes(2 * gap + 3, &text);
                    out.bool(2 * gap + 4, truth);
                    out.structs(2 * gap + 5, &vec![(); count], |out, ()| out.i64(1, long));
                });
                prop_assert_eq!(walk(&out.out, protocol), Ok(()));
                let mut reader = Reader::new(&out.out, protocol);
                let (mut last, mut seen) = (0, 0);
                while let Some(field) = reader.field(&mut last).unwrap() {
                    seen += 1;
                    match seen {
                        1 => prop_assert_eq!((field.id, reader.i16()), (gap, Ok(small))),
                        2 => prop_assert_eq!(reader.i32(), Ok(whole)),
                        3 => prop_assert_eq!(reader.i64(), Ok(long)),
                        4 => prop_assert_eq!(reader.double(), Ok(number)),
                        5 => prop_assert_eq!(reader.bytes(), Ok(&text[..])),
                        6 => prop_assert_eq!(reader.bool(field), Ok(truth)),
                        _ => {
                            let all = reader.structs(|reader| {
                                let mut last = 0;
                                reader.field(&mut last)?;
                                let value = reader.i64()?;
                                reader.field(&mut last)?;
                                Ok(value)
                            });
                            prop_assert_eq!(all, Ok(vec![long; count]));
                        }
                    }
                }
                prop_assert_eq!(seen, 7);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            for protocol in PROTOCOLS {
                let _ = walk(&bytes, protocol);
                let _ = Reader::new(&bytes, protocol).call();
            }
        }
    }
}
