//! Statements in SQL, with the values hidden that they hold.

use crate::processor::redaction::trim;

/// How deep functions quoted with dollars may hold each other.
const DEPTH_MAX: usize = 32;

/// Hides the values of a statement: strings, numbers, truth values, `NULL` and parameters with numbers become question
/// marks, and so do digits in names. The dialect of MySQL has strings in double quotes, names in backquotes and comments
/// that begin with `#`.
pub(super) fn hide(text: &[u8], is_mysql: bool) -> Vec<u8> {
    hide_within(text, is_mysql, DEPTH_MAX)
}

fn hide_within(text: &[u8], is_mysql: bool, depth: usize) -> Vec<u8> {
    let mut scanner = Scanner { text, at: 0, is_mysql };
    let mut out = Vec::with_capacity(text.len());
    loop {
        let start = scanner.at;
        let Some(token) = scanner.next() else { break };
        let raw = &text[start..scanner.at];
        match token {
            Token::Kept => out.extend_from_slice(raw),
            Token::Value => out.push(b'?'),
            Token::Name => {
                let digits = |at: usize| raw[at].is_ascii_digit();
                for (at, byte) in raw.iter().enumerate() {
                    match (digits(at), at > 0 && digits(at - 1)) {
                        (false, _) => out.push(*byte),
                        (true, false) => out.push(b'?'),
                        (true, true) => {}
                    }
                }
            }
            Token::Function => match depth.checked_sub(1) {
                Some(depth) => {
                    out.extend_from_slice(FUNCTION);
                    out.extend(hide_within(&raw[FUNCTION.len()..raw.len() - FUNCTION.len()], is_mysql, depth));
                    out.extend_from_slice(FUNCTION);
                }
                None => out.push(b'?'),
            },
        }
    }
    trim(&out).to_vec()
}

const FUNCTION: &[u8] = b"$func$";

enum Token {
    Kept,
    Value,
    Name,
    /// A statement between two [`FUNCTION`].
    Function,
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    is_mysql: bool,
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn is_punctuation(byte: u8) -> bool {
    b"(),;.:[]{}".contains(&byte)
}

fn is_operator(byte: u8) -> bool {
    b"+-*/=<>!&|^%~?@:#".contains(&byte)
}

impl Scanner<'_> {
    /// The byte so far ahead; 0, which ends a statement, behind the end.
    fn ahead(&self, by: usize) -> u8 {
        self.text.get(self.at + by).copied().unwrap_or_default()
    }

    fn skip(&mut self, by: usize) {
        self.at = (self.at + by).min(self.text.len());
    }

    fn skip_while(&mut self, holds: impl Fn(u8) -> bool) {
        while self.at < self.text.len() && holds(self.ahead(0)) {
            self.at += 1;
        }
    }

    /// The character beyond ASCII that stands here, if it is one that satisfies something.
    fn character(&self, is: impl Fn(char) -> bool) -> Option<usize> {
        let rest = &self.text[self.at..];
        if rest.first()?.is_ascii() {
            return None;
        }
        let valid = match std::str::from_utf8(&rest[..rest.len().min(4)]) {
            Ok(valid) => valid,
            Err(error) => std::str::from_utf8(&rest[..error.valid_up_to()]).unwrap_or_default(),
        };
        valid.chars().next().filter(|character| is(*character)).map(char::len_utf8)
    }

    fn is_letter(&self) -> bool {
        let byte = self.ahead(0);
        byte.is_ascii_alphabetic() || byte == b'_' || self.character(char::is_alphabetic).is_some()
    }

    fn is_word(&self, by: usize) -> bool {
        let ahead = Scanner { at: (self.at + by).min(self.text.len()), ..*self };
        ahead.is_letter() || ahead.ahead(0).is_ascii_digit() || ahead.character(char::is_numeric).is_some()
    }

    /// Reads a token; nothing at the end.
    fn next(&mut self) -> Option<Token> {
        let byte = self.ahead(0);
        Some(match byte {
            0 => return None,
            _ if is_space(byte) => {
                self.skip_while(is_space);
                Token::Kept
            }
            _ if self.is_letter() => self.name(),
            b'"' if self.is_mysql => self.string(b'"'),
            b'"' => self.quoted_name(b'"'),
            b'\'' => self.string(b'\''),
            b'-' if self.ahead(1) == b'-' => self.comment(2),
            b'/' if self.ahead(1) == b'*' => self.long_comment(),
            b'+' | b'-' if self.ahead(1).is_ascii_digit() || self.ahead(1) == b'.' => {
                self.skip(1);
                self.number()
            }
            b'0' if matches!(self.ahead(1), b'x' | b'X') => {
                self.skip(2);
                self.skip_while(|byte| byte.is_ascii_hexdigit());
                Token::Value
            }
            b'0' if matches!(self.ahead(1), b'0'..=b'7') => {
                self.skip(2);
                self.skip_while(|byte| matches!(byte, b'0'..=b'7'));
                Token::Value
            }
            b'0'..=b'9' => self.number(),
            b'*' => self.kept(1),
            b'$' if self.ahead(1).is_ascii_digit() => {
                self.skip(2);
                self.skip_while(|byte| byte.is_ascii_digit());
                Token::Value
            }
            b'$' => self.dollar_quoted(),
            b'`' if self.is_mysql => self.quoted_name(b'`'),
            b'#' if self.is_mysql => self.comment(1),
            b'@' if self.ahead(1) == b'@' && !self.is_word(2) => self.kept(2),
            b'@' if self.ahead(1) == b'@' => self.words(2),
            b'@' if self.is_word(1) => self.words(2),
            b'@' if matches!(self.ahead(1), b'?' | b'>') => self.kept(2),
            _ if is_operator(byte) => self.operator(),
            _ => self.kept(1),
        })
    }

    fn kept(&mut self, len: usize) -> Token {
        self.skip(len);
        Token::Kept
    }

    /// Goes on over letters and digits.
    fn words(&mut self, first: usize) -> Token {
        self.skip(first);
        while self.at < self.text.len() && self.is_word(0) {
            // Bytes within a character are no letters: as in the reference, a name ends there.
            self.at += 1;
        }
        Token::Kept
    }

    fn name(&mut self) -> Token {
        let start = self.at;
        if self.ahead(0).is_ascii() {
            self.skip_while(|byte| byte.is_ascii_alphabetic() || byte == b'_');
            let word = &self.text[start..self.at];
            let byte = self.ahead(0);
            if byte == 0 || is_space(byte) || is_punctuation(byte) {
                let is_value = [&b"TRUE"[..], b"FALSE", b"NULL"].iter().any(|known| word.eq_ignore_ascii_case(known));
                if is_value {
                    return Token::Value;
                }
            }
        }
        while self.at < self.text.len() {
            let byte = self.ahead(0);
            let len = match self.character(char::is_alphabetic) {
                Some(len) => len,
                None if byte.is_ascii_alphanumeric() || b"_\".?$#/@!".contains(&byte) => 1,
                None => break,
            };
            self.skip(len);
        }
        if self.text[start].is_ascii() && self.ahead(0) == b'(' { Token::Kept } else { Token::Name }
    }

    fn number(&mut self) -> Token {
        loop {
            match self.ahead(0) {
                b'0'..=b'9' | b'.' => self.at += 1,
                b'e' | b'E' => {
                    self.at += 1;
                    if matches!(self.ahead(0), b'+' | b'-') {
                        self.at += 1;
                    }
                }
                _ => return Token::Value,
            }
        }
    }

    fn string(&mut self, quote: u8) -> Token {
        self.skip(1);
        let mut is_escaped = false;
        loop {
            match self.ahead(0) {
                // A string that does not end is hidden, too.
                0 => return Token::Value,
                _ if is_escaped => is_escaped = false,
                b'\\' => is_escaped = true,
                byte if byte == quote => {
                    self.skip(1);
                    return Token::Value;
                }
                _ => {}
            }
            self.skip(1);
        }
    }

    /// A name in quotes, or several with points between them. One that does not end stays as it is.
    fn quoted_name(&mut self, quote: u8) -> Token {
        self.skip(1);
        loop {
            match self.ahead(0) {
                0 => return Token::Kept,
                byte if byte != quote => self.skip(1),
                _ if (self.ahead(1), self.ahead(2)) == (b'.', quote) => self.skip(3),
                _ => {
                    self.skip(1);
                    return Token::Name;
                }
            }
        }
    }

    fn comment(&mut self, marks: usize) -> Token {
        self.skip(marks);
        self.skip_while(|byte| byte != b'\n' && byte != 0);
        Token::Kept
    }

    fn long_comment(&mut self) -> Token {
        self.skip(2);
        while self.ahead(0) != 0 && (self.ahead(0), self.ahead(1)) != (b'*', b'/') {
            self.skip(1);
        }
        self.kept(if self.ahead(0) == 0 { 0 } else { 2 })
    }

    fn dollar_quoted(&mut self) -> Token {
        let start = self.at;
        self.skip(1);
        self.skip_while(|byte| byte != b'$');
        self.skip(1);
        let tag = &self.text[start..self.at];
        let rest = &self.text[self.at..];
        match rest.windows(tag.len()).position(|window| window == tag) {
            Some(at) => {
                self.skip(at + tag.len());
                if tag == FUNCTION { Token::Function } else { Token::Value }
            }
            None => self.kept(rest.len()),
        }
    }

    fn operator(&mut self) -> Token {
        let mut last = self.ahead(0);
        self.skip(1);
        let next = self.ahead(0);
        match (last, next) {
            (b'-' | b'#', b'>') => return self.kept(if self.ahead(1) == b'>' { 2 } else { 1 }),
            (b'#', b'-') | (b'?', b'|' | b'&') | (b'<', b'@') => return self.kept(1),
            _ => {}
        }
        while is_operator(self.ahead(0)) && !(last == b'=' && matches!(self.ahead(0), b'?' | b'@')) {
            last = self.ahead(0);
            self.skip(1);
        }
        Token::Kept
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_statement_makes_it_panic_and_no_number_is_seen(
            any in any::<Vec<u8>>(),
            near in "[a1'\"`$@#:;=<>?*/.,()\\-+ \n\u{e9}]{0,60}",
            is_mysql: bool,
        ) {
            hide(&any, is_mysql);
            let hidden = String::from_utf8(hide(near.as_bytes(), is_mysql)).unwrap();
            // What the scanner keeps as it is: comments, names that do not end, functions and parameters with names.
            let may_be_seen = near.contains(['"', '`', '$', '@', '#', '(', '/', '-']);
            prop_assert!(may_be_seen || !hidden.contains('1'), "{near} {hidden}");
        }
    }
}
