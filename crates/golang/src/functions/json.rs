//! JSON as Go's `encoding/json` reads and writes it.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Type::{Any, Text};
use super::{Answer, Function, function};
use crate::json::{Form, push_number, push_string};
use crate::numbers::parse_float;
use crate::template::{Exec, ListKind, NESTING_MAX, Value, too_deep};
use crate::text::{chars, push};

/// How a value is written.
#[derive(Clone, Copy)]
pub(super) struct Style {
    /// Whether `<`, `>` and `&` are escaped.
    pub(super) html: bool,
    /// Whether each item stands on a line of its own.
    pub(super) pretty: bool,
}

/// Reads a text. The flag tells whether a number in it is too large, which is then nil and an error.
pub(super) fn read(exec: &mut Exec<'_>, text: &[u8]) -> Result<(Value, bool), String> {
    let mut reader = Reader { exec, text, at: 0, too_large: false };
    let value = reader.value(0)?;
    reader.spaces();
    if reader.at < text.len() {
        return Err(reader.unexpected("after top-level value"));
    }
    Ok((value, reader.too_large))
}

struct Reader<'a, 'b> {
    exec: &'a mut Exec<'b>,
    text: &'a [u8],
    at: usize,
    too_large: bool,
}

impl Reader<'_, '_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn spaces(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn unexpected(&self, place: &str) -> String {
        match self.text.get(self.at..).and_then(|rest| chars(rest).next()) {
            Some((_, character, _)) => format!("invalid character '{character}' {place}"),
            None => "unexpected end of JSON input".to_owned(),
        }
    }

    fn value(&mut self, depth: usize) -> Answer {
        if depth > NESTING_MAX {
            return Err(too_deep());
        }
        self.spaces();
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().map(Value::from),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => {
                let words = [(&b"true"[..], Value::Bool(true)), (b"false", Value::Bool(false)), (b"null", Value::Nil)];
                for (word, value) in words {
                    if self.text[self.at..].starts_with(word) {
                        self.at += word.len();
                        return Ok(value);
                    }
                }
                Err(self.unexpected("looking for beginning of value"))
            }
        }
    }

    fn object(&mut self, depth: usize) -> Answer {
        let mut map = BTreeMap::new();
        self.at += 1;
        self.spaces();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(self.exec.dict(map));
        }
        loop {
            self.spaces();
            if self.peek() != Some(b'"') {
                return Err(self.unexpected("looking for beginning of object key string"));
            }
            let name = self.string()?;
            self.spaces();
            if self.peek() != Some(b':') {
                return Err(self.unexpected("after object key"));
            }
            self.at += 1;
            let value = self.value(depth + 1)?;
            self.exec.charge(64)?;
            map.insert(Bytes::from(name), value);
            self.spaces();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(self.exec.dict(map));
                }
                _ => return Err(self.unexpected("after object key:value pair")),
            }
        }
    }

    fn array(&mut self, depth: usize) -> Answer {
        let mut items = Vec::new();
        self.at += 1;
        self.spaces();
        if self.peek() == Some(b']') {
            self.at += 1;
            return self.exec.list(ListKind::Any, items);
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.exec.charge(16)?;
            self.spaces();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return self.exec.list(ListKind::Any, items);
                }
                _ => return Err(self.unexpected("after array element")),
            }
        }
    }

    fn digits(&mut self) -> Result<(), String> {
        if !self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            return Err(self.unexpected("in numeric literal"));
        }
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Answer {
        let start = self.at;
        self.at += usize::from(self.peek() == Some(b'-'));
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
        }
        match parse_float(&self.text[start..self.at]) {
            Ok(value) => Ok(Value::Float(value)),
            Err(_) => {
                self.too_large = true;
                Ok(Value::Nil)
            }
        }
    }

    fn hex(&self, at: usize) -> Option<u32> {
        let digits = self.text.get(at..at + 4)?;
        digits.iter().try_fold(0, |value, digit| Some(value * 16 + char::from(*digit).to_digit(16)?))
    }

    fn string(&mut self) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        self.at += 1;
        loop {
            let Some(byte) = self.peek() else { return Err(self.unexpected("")) };
            match byte {
                b'"' => {
                    self.at += 1;
                    return Ok(out);
                }
                b'\\' => {
                    let escape = self.text.get(self.at + 1).copied();
                    self.at += 2;
                    match escape {
                        Some(byte @ (b'"' | b'\\' | b'/')) => out.push(byte),
                        Some(b'b') => out.push(8),
                        Some(b'f') => out.push(12),
                        Some(b'n') => out.push(b'\n'),
                        Some(b'r') => out.push(b'\r'),
                        Some(b't') => out.push(b'\t'),
                        Some(b'u') => {
                            let Some(mut code) = self.hex(self.at) else {
                                return Err(self.unexpected("in \\u hexadecimal character escape"));
                            };
                            self.at += 4;
                            // A pair of halves is one character, a half alone is none.
                            if (0xd800..0xdc00).contains(&code)
                                && self.text[self.at.min(self.text.len())..].starts_with(b"\\u")
                                && let Some(low @ 0xdc00..0xe000) = self.hex(self.at + 2)
                            {
                                code = 0x1_0000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                                self.at += 6;
                            }
                            push(&mut out, char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                        }
                        _ => {
                            self.at -= 1;
                            return Err(self.unexpected("in string escape code"));
                        }
                    }
                }
                0..0x20 => return Err(self.unexpected("in string literal")),
                _ => {
                    let Some((_, character, len)) = chars(&self.text[self.at..]).next() else { continue };
                    push(&mut out, character);
                    self.at += len;
                }
            }
        }
    }
}

/// Writes a value.
pub(super) fn write(value: &Value, style: Style) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    write_at(value, style, 0, &mut out)?;
    Ok(out)
}

fn line(style: Style, depth: usize, out: &mut Vec<u8>) {
    if style.pretty {
        out.push(b'\n');
        out.extend(std::iter::repeat_n(b' ', 2 * depth));
    }
}

fn write_at(value: &Value, style: Style, depth: usize, out: &mut Vec<u8>) -> Result<(), String> {
    if depth > NESTING_MAX {
        return Err(too_deep());
    }
    match value {
        Value::Nil | Value::Root => out.extend_from_slice(b"null"),
        Value::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        Value::Uint8(value) => out.extend_from_slice(value.to_string().as_bytes()),
        Value::Float(value) => write_float(*value, out)?,
        Value::Text(text) => write_text(text, style, out),
        Value::Time(time) => write_text(time.rfc3339().as_bytes(), style, out),
        Value::Version(version) => write_text(version.to_string().as_bytes(), style, out),
        Value::List(list) if list.is_nil => out.extend_from_slice(b"null"),
        Value::List(list) => {
            out.push(b'[');
            for (index, item) in list.items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                line(style, depth + 1, out);
                write_at(item, style, depth + 1, out)?;
            }
            if !list.items.is_empty() {
                line(style, depth, out);
            }
            out.push(b']');
        }
        Value::Dict(dict) => {
            out.push(b'{');
            let map = dict.map.borrow();
            for (index, (name, value)) in map.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                line(style, depth + 1, out);
                write_text(name, style, out);
                out.extend_from_slice(if style.pretty { b": " } else { b":" });
                write_at(value, style, depth + 1, out)?;
            }
            if !map.is_empty() {
                line(style, depth, out);
            }
            out.push(b'}');
        }
        other => out.extend_from_slice(other.as_int().unwrap_or(0).to_string().as_bytes()),
    }
    Ok(())
}

fn write_float(value: f64, out: &mut Vec<u8>) -> Result<(), String> {
    if !value.is_finite() {
        let name = if value.is_nan() {
            "NaN"
        } else if value < 0.0 {
            "-Inf"
        } else {
            "+Inf"
        };
        return Err(format!("json: unsupported value: {name}"));
    }
    push_number(value, Form::HTML, out);
    Ok(())
}

fn write_text(text: &[u8], style: Style, out: &mut Vec<u8>) {
    push_string(text, if style.html { Form::HTML } else { Form::PLAIN }, out);
}

/// A function that reads, and one that writes.
pub(super) const fn reader(name: &'static str, run: super::Run) -> Function {
    function(name, &[Text], run)
}

pub(super) const fn writer(name: &'static str, run: super::Run) -> Function {
    function(name, &[Any], run)
}
