//! Values of JSON documents, hidden.

use std::ops::Range;

/// How deep a document may be.
const DEPTH_MAX: usize = 10_000;

/// Writes a document without white space within it and with a question mark for every value that is neither an object nor an array;
/// `None` if it is no JSON.
pub(super) fn hide(text: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader { text, at: 0, out: Vec::with_capacity(text.len()) };
    // Whether each container that is open is an object.
    let mut open: Vec<bool> = Vec::new();
    loop {
        // A value begins.
        match reader.next()? {
            opening @ (b'{' | b'[') => {
                if open.len() == DEPTH_MAX {
                    return None;
                }
                reader.out.push(opening);
                let is_object = opening == b'{';
                if reader.peek()? != opening + 2 {
                    open.push(is_object);
                    if is_object {
                        reader.key()?;
                    }
                    continue;
                }
                reader.at += 1;
                reader.out.push(opening + 2);
            }
            first => {
                reader.scalar(first)?;
                reader.out.extend_from_slice(b"\"?\"");
            }
        }
        // A value has ended.
        loop {
            let Some(is_object) = open.last() else {
                // White space at the end stays, as it does in the reference.
                let rest = &text[reader.at..];
                let is_blank = reader.peek().is_none();
                reader.out.extend_from_slice(rest);
                return is_blank.then_some(reader.out);
            };
            match reader.next()? {
                b',' => {
                    reader.out.push(b',');
                    if *is_object {
                        reader.key()?;
                    }
                    break;
                }
                b'}' if *is_object => reader.out.push(b'}'),
                b']' if !is_object => reader.out.push(b']'),
                _ => return None,
            }
            open.pop();
        }
    }
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    out: Vec<u8>,
}

impl Reader<'_> {
    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        while matches!(self.text.get(self.at)?, b' ' | b'\t' | b'\r' | b'\n') {
            self.at += 1;
        }
        Some(self.text[self.at])
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    /// Writes a key with its colon.
    fn key(&mut self) -> Option<()> {
        if self.next()? != b'"' {
            return None;
        }
        let Range { start, end } = self.string()?;
        self.out.extend_from_slice(&self.text[start..end]);
        if self.next()? != b':' {
            return None;
        }
        self.out.push(b':');
        Some(())
    }

    /// Reads a string whose first quote was read; where it is, with both.
    fn string(&mut self) -> Option<Range<usize>> {
        let start = self.at - 1;
        loop {
            let byte = *self.text.get(self.at)?;
            self.at += 1;
            match byte {
                b'"' => return Some(start..self.at),
                b'\\' => {
                    let escaped = *self.text.get(self.at)?;
                    self.at += 1;
                    if escaped == b'u' {
                        let digits = self.text.get(self.at..self.at + 4)?;
                        if !digits.iter().all(u8::is_ascii_hexdigit) {
                            return None;
                        }
                        self.at += 4;
                    } else if !b"\"\\/bfnrt".contains(&escaped) {
                        return None;
                    }
                }
                0..0x20 => return None,
                _ => {}
            }
        }
    }

    /// Reads a string, a number or a word whose first byte was read.
    fn scalar(&mut self, first: u8) -> Option<()> {
        let word: &[u8] = match first {
            b'"' => return self.string().map(drop),
            b't' => b"rue",
            b'f' => b"alse",
            b'n' => b"ull",
            b'-' => {
                let digit = *self.text.get(self.at)?;
                self.at += 1;
                return self.number(digit);
            }
            digit => return self.number(digit),
        };
        let found = self.text.get(self.at..self.at + word.len())? == word;
        self.at += word.len();
        found.then_some(())
    }

    fn number(&mut self, first: u8) -> Option<()> {
        match first {
            b'0' => {}
            b'1'..=b'9' => self.digits(),
            _ => return None,
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if matches!(self.text.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.text.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.some_digits()?;
        }
        Some(())
    }

    fn digits(&mut self) {
        while self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
    }

    fn some_digits(&mut self) -> Option<()> {
        let start = self.at;
        self.digits();
        (self.at > start).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_json_is_does_not_change(text in r#"[\[\]{}",:0-9eE.+ \-tfnrualse\\x]{0,40}"#) {
            let known = serde_json::from_str::<serde_json::Value>(&text);
            // A number may be too great, or an escape half of a character, for that reader.
            let may_differ = text.contains(['e', 'E', '\\']) || text.len() > 30;
            let hidden = hide(text.as_bytes());
            prop_assert!(may_differ || hidden.is_some() == known.is_ok(), "{text} {hidden:?}");
            if let Some(hidden) = hidden {
                let again = serde_json::from_slice::<serde_json::Value>(&hidden);
                prop_assert!(may_differ || again.is_ok(), "{text}");
                prop_assert!(!hidden.iter().any(|byte| byte.is_ascii_digit()) || text.contains('"'));
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<Vec<u8>>()) {
            hide(&text);
        }
    }
}
