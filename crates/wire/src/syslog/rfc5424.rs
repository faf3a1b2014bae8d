//! Messages of RFC 5424.

use std::borrow::Cow;

use super::{Message, MessageError, Stamp, not_nil, priority};

const PRIORITY: &str = "expecting a priority value in the range 1-191 or equal to 0";
const VERSION: &str = "expecting a version value in the range 1-999";
const TIMESTAMP: &str = "expecting a RFC3339MICRO timestamp or a nil value";
const HOSTNAME: &str = "expecting an hostname (from 1 to max 255 US-ASCII characters) or a nil value";
const APP_NAME: &str = "expecting an app-name (from 1 to max 48 US-ASCII characters) or a nil value";
const PROC_ID: &str = "expecting a procid (from 1 to max 128 US-ASCII characters) or a nil value";
const MSG_ID: &str = "expecting a msgid (from 1 to max 32 US-ASCII characters) or a nil value";
const DATA: &str = "expecting a structured data section containing one or more elements or a nil value";
const DATA_ID: &str = "expecting a structured data element id (from 1 to max 32 US-ASCII characters)";
const DATA_DUPLICATE: &str = "duplicate structured data element id";
const DATA_PARAMETER: &str = "expecting a structured data parameter (`key=\"value\"`)";
const PARSING: &str = "parsing error";

/// Reads a message.
///
/// # Errors
///
/// What is wrong with it.
pub fn parse(input: &[u8]) -> Result<Message<'_>, MessageError> {
    let mut message = Message::default();
    let mut reader = Reader { input, at: 0 };
    match reader.message(&mut message) {
        Ok(()) => Ok(message),
        Err(what) => Err(MessageError { offset: reader.at, what }),
    }
}

struct Reader<'a> {
    input: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.input.get(self.at).copied()
    }

    fn expect(&mut self, wanted: u8, what: &'static str) -> Result<(), &'static str> {
        if self.peek() != Some(wanted) {
            return Err(what);
        }
        self.at += 1;
        Ok(())
    }

    fn message(&mut self, message: &mut Message<'a>) -> Result<(), &'static str> {
        let (value, behind) = priority(self.input).map_err(|at| {
            self.at = at;
            PRIORITY
        })?;
        message.priority = Some(value);
        self.at = behind;
        message.version = self.version()?;
        self.expect(b' ', PARSING)?;
        message.timestamp = self.stamp()?;
        self.expect(b' ', TIMESTAMP)?;
        message.hostname = not_nil(self.word(255, HOSTNAME)?);
        self.expect(b' ', HOSTNAME)?;
        message.app_name = not_nil(self.word(48, APP_NAME)?);
        self.expect(b' ', APP_NAME)?;
        message.proc_id = not_nil(self.word(128, PROC_ID)?);
        self.expect(b' ', PROC_ID)?;
        message.msg_id = not_nil(self.word(32, MSG_ID)?);
        self.expect(b' ', MSG_ID)?;
        self.structured_data(message)?;
        match self.peek() {
            None => Ok(()),
            Some(b' ') => {
                message.text = Some(&self.input[self.at + 1..]).filter(|text| !text.is_empty());
                Ok(())
            }
            Some(_) => Err(DATA),
        }
    }

    fn version(&mut self) -> Result<u16, &'static str> {
        let digits = self.input[self.at..].iter().take(3).take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 || self.peek() == Some(b'0') {
            return Err(VERSION);
        }
        let version = number(&self.input[self.at..self.at + digits]);
        self.at += digits;
        Ok(version as u16)
    }

    fn digits(&mut self, count: usize) -> Result<u32, &'static str> {
        let start = self.at;
        while self.at < start + count {
            if !self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
                return Err(TIMESTAMP);
            }
            self.at += 1;
        }
        Ok(number(&self.input[start..self.at]))
    }

    /// A number of two digits in a range.
    fn pair(&mut self, low: u32, high: u32) -> Result<u8, &'static str> {
        let start = self.at;
        let value = self.digits(2)?;
        if !(low..=high).contains(&value) {
            // The first digit decides unless there is one that would do after it.
            let tens = u32::from(self.input[start] - b'0');
            self.at = start + usize::from(tens * 10 <= high && tens * 10 + 9 >= low);
            return Err(TIMESTAMP);
        }
        Ok(value as u8)
    }

    fn stamp(&mut self) -> Result<Option<Stamp>, &'static str> {
        if self.peek() == Some(b'-') {
            self.at += 1;
            return Ok(None);
        }
        let year = self.digits(4)? as i32;
        self.expect(b'-', TIMESTAMP)?;
        let month = self.pair(1, 12)?;
        self.expect(b'-', TIMESTAMP)?;
        let day = self.pair(1, 31)?;
        self.expect(b'T', TIMESTAMP)?;
        let mut time = [self.pair(0, 23)?, 0, 0];
        for part in &mut time[1..] {
            self.expect(b':', TIMESTAMP)?;
            *part = self.pair(0, 59)?;
        }
        let mut nanos = 0;
        if self.peek() == Some(b'.') {
            self.at += 1;
            let digits = self.input[self.at..].iter().take(6).take_while(|byte| byte.is_ascii_digit()).count();
            nanos = self.digits(digits.max(1))? * 10u32.pow(9 - digits as u32);
        }
        let sign = match self.peek() {
            Some(b'Z') => 0,
            Some(b'+') => 1,
            Some(b'-') => -1,
            _ => return Err(TIMESTAMP),
        };
        self.at += 1;
        let mut offset_minutes = 0;
        if sign != 0 {
            let hours = self.pair(0, 23)?;
            self.expect(b':', TIMESTAMP)?;
            offset_minutes = sign * (i32::from(hours) * 60 + i32::from(self.pair(0, 59)?));
        }
        let stamp = Stamp { year, month, day, time, nanos, offset_minutes };
        if stamp.is_a_day() { Ok(Some(stamp)) } else { Err(TIMESTAMP) }
    }

    /// Up to so many visible characters of ASCII.
    fn word(&mut self, len_max: usize, what: &'static str) -> Result<&'a [u8], &'static str> {
        let len = self.input[self.at..].iter().take(len_max).take_while(|byte| byte.is_ascii_graphic()).count();
        let word = &self.input[self.at..self.at + len];
        self.at += len;
        if len == 0 { Err(what) } else { Ok(word) }
    }

    fn structured_data(&mut self, message: &mut Message<'a>) -> Result<(), &'static str> {
        match self.peek() {
            Some(b'-') => {
                self.at += 1;
                return Ok(());
            }
            Some(b'[') => {}
            _ => return Err(DATA),
        }
        let elements = message.structured_data.insert(Default::default());
        while self.peek() == Some(b'[') {
            self.at += 1;
            let id = self.name(DATA_ID)?;
            if !matches!(self.peek(), Some(b' ' | b']')) {
                return Err(DATA_ID);
            }
            if elements.contains_key(id) {
                return Err(DATA_DUPLICATE);
            }
            let parameters = elements.entry(id).or_default();
            while self.peek() == Some(b' ') {
                self.at += 1;
                let name = self.name(DATA_PARAMETER)?;
                self.expect(b'=', DATA_PARAMETER)?;
                self.expect(b'"', DATA_PARAMETER)?;
                let value = self.value()?;
                parameters.insert(name, value);
            }
            self.expect(b']', DATA_PARAMETER)?;
        }
        Ok(())
    }

    fn name(&mut self, what: &'static str) -> Result<&'a [u8], &'static str> {
        let belongs = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'=' | b']' | b'"');
        let len = self.input[self.at..].iter().take(32).take_while(|byte| belongs(byte)).count();
        let name = &self.input[self.at..self.at + len];
        self.at += len;
        if len == 0 { Err(what) } else { Ok(name) }
    }

    /// A value with its closing quote. It has to be UTF-8.
    fn value(&mut self) -> Result<Cow<'a, [u8]>, &'static str> {
        let start = self.at;
        let mut escaped = Vec::new();
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped.push(self.at);
                    self.at += 1;
                    if !matches!(self.peek(), Some(b'"' | b'\\' | b']')) {
                        return Err(DATA_PARAMETER);
                    }
                    self.at += 1;
                }
                Some(b']') | None => return Err(DATA_PARAMETER),
                Some(0..=0x7f) => self.at += 1,
                Some(_) => {
                    let next = &self.input[self.at..self.input.len().min(self.at + 4)];
                    let valid = match std::str::from_utf8(next) {
                        Ok(text) => text.len(),
                        Err(error) => error.valid_up_to(),
                    };
                    let text = std::str::from_utf8(&next[..valid]).unwrap_or_default();
                    let Some(c) = text.chars().next() else { return Err(DATA_PARAMETER) };
                    self.at += c.len_utf8();
                }
            }
        }
        let text = &self.input[start..self.at];
        self.at += 1;
        if escaped.is_empty() {
            return Ok(Cow::Borrowed(text));
        }
        let mut out = Vec::with_capacity(text.len());
        let mut from = start;
        for at in escaped {
            out.extend_from_slice(&self.input[from..at]);
            from = at + 1;
        }
        out.extend_from_slice(&self.input[from..self.at - 1]);
        Ok(Cow::Owned(out))
    }
}

fn number(digits: &[u8]) -> u32 {
    digits.iter().fold(0, |value, digit| value * 10 + u32::from(digit - b'0'))
}
