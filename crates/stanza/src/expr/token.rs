//! Tokens of programs.

use crate::value::Text;

/// What a token is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Identifier(String),
    Number(String),
    Str(Text),
    Bytes(Text),
    Operator(String),
    Bracket(char),
    End,
}

impl Token {
    pub(super) fn is_operator(&self, operator: &str) -> bool {
        matches!(self, Token::Operator(text) if text == operator)
    }

    pub(super) fn is_bracket(&self, bracket: char) -> bool {
        *self == Token::Bracket(bracket)
    }

    /// As error messages show it.
    pub(super) fn shown(&self) -> String {
        match self {
            Token::Identifier(text) => format!("Identifier({text:?})"),
            Token::Number(text) => format!("Number({text:?})"),
            Token::Str(text) => format!("String({:?})", text.lossy()),
            Token::Bytes(text) => format!("Bytes({:?})", text.lossy()),
            Token::Operator(text) => format!("Operator({text:?})"),
            Token::Bracket(bracket) => format!("Bracket(\"{bracket}\")"),
            Token::End => "EOF".to_owned(),
        }
    }
}

/// A token, and the character that it begins at.
pub(super) type Placed = (Token, u32);

/// Where something is wrong, and what.
pub(super) type Refused = (u32, String);

pub(super) fn is_alphabetic(c: char) -> bool {
    c == '_' || c == '$' || c.is_alphabetic()
}

fn is_alphanumeric(c: char) -> bool {
    is_alphabetic(c) || c.is_numeric()
}

struct Lexer {
    characters: Vec<char>,
    at: usize,
    tokens: Vec<Placed>,
}

/// Splits a program into tokens, of which the last is the end.
pub(super) fn tokens(text: &str) -> Result<Vec<Placed>, Refused> {
    let mut lexer = Lexer { characters: text.chars().collect(), at: 0, tokens: Vec::new() };
    while lexer.token()? {}
    Ok(lexer.tokens)
}

const WORDS: [&str; 11] =
    ["in", "or", "and", "matches", "contains", "startsWith", "endsWith", "let", "if", "else", "not"];

impl Lexer {
    fn peek(&self) -> Option<char> {
        self.characters.get(self.at).copied()
    }

    fn accept(&mut self, signs: &str) -> bool {
        let accepted = self.peek().is_some_and(|c| signs.contains(c));
        self.at += usize::from(accepted);
        accepted
    }

    fn run(&mut self, signs: &str) {
        while self.accept(signs) {}
    }

    fn word(&self, start: usize) -> String {
        self.characters[start..self.at].iter().collect()
    }

    fn emit(&mut self, start: usize, token: Token) {
        self.tokens.push((token, start as u32));
    }

    fn operator(&mut self, start: usize) {
        let token = Token::Operator(self.word(start));
        self.emit(start, token);
    }

    /// Reads a token; whether there may be more.
    fn token(&mut self) -> Result<bool, Refused> {
        let start = self.at;
        let Some(c) = self.peek() else {
            // Errors about the end point to the last character.
            self.emit(start.saturating_sub(1), Token::End);
            return Ok(false);
        };
        self.at += 1;
        match c {
            c if c.is_whitespace() => {}
            '\'' | '"' => {
                let text = self.quoted(c, false)?;
                self.emit(start, Token::Str(text));
            }
            '`' => {
                let text = self.raw()?;
                self.emit(start, Token::Str(text));
            }
            'b' | 'B' if matches!(self.peek(), Some('\'' | '"')) => {
                let quote = self.characters[self.at];
                self.at += 1;
                let text = self.quoted(quote, true)?;
                self.emit(start, Token::Bytes(text));
            }
            '0'..='9' => self.number(start)?,
            '.' if self.peek().is_some_and(|c| c.is_ascii_digit()) => self.number(start)?,
            '?' => {
                self.accept(".?");
                self.operator(start);
            }
            '/' if self.accept("/") => while !matches!(self.next(), None | Some('\n')) {},
            '/' if self.accept("*") => loop {
                match self.next() {
                    None => return Err((self.at as u32, "unclosed comment".to_owned())),
                    Some('*') if self.accept("/") => break,
                    Some(_) => {}
                }
            },
            '#' => {
                self.accept("#");
                self.operator(start);
                let name = self.at;
                while self.peek().is_some_and(is_alphanumeric) {
                    self.at += 1;
                }
                if self.at > name {
                    let token = Token::Identifier(self.word(name));
                    self.emit(name, token);
                }
            }
            '|' => {
                self.accept("|");
                self.operator(start);
            }
            ':' => {
                self.accept(":");
                self.operator(start);
            }
            '(' | '[' | '{' | ')' | ']' | '}' => self.emit(start, Token::Bracket(c)),
            ',' | ';' | '%' | '+' | '-' | '^' | '/' => self.operator(start),
            '&' | '!' | '=' | '*' | '<' | '>' => {
                self.accept("&=*");
                self.operator(start);
            }
            '.' => {
                self.accept(".");
                self.operator(start);
            }
            c if is_alphanumeric(c) => {
                while self.peek().is_some_and(is_alphanumeric) {
                    self.at += 1;
                }
                let word = self.word(start);
                let is_operator = WORDS.contains(&&*word);
                self.emit(start, if is_operator { Token::Operator(word) } else { Token::Identifier(word) });
            }
            c => {
                return Err((start as u32, format!("unrecognized character: U+{:04X} '{c}'", u32::from(c))));
            }
        }
        Ok(true)
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek();
        self.at += usize::from(c.is_some());
        c
    }

    fn number(&mut self, start: usize) -> Result<(), Refused> {
        self.at = start;
        let mut digits = "0123456789_";
        if self.accept("0") {
            if self.accept("xX") {
                digits = "0123456789abcdefABCDEF_";
            } else if self.accept("oO") {
                digits = "01234567_";
            } else if self.accept("bB") {
                digits = "01_";
            }
        }
        self.run(digits);
        let before_point = self.at;
        if self.accept(".") {
            if self.peek() == Some('.') {
                // A range.
                self.at = before_point;
                let token = Token::Number(self.word(start));
                self.emit(start, token);
                return Ok(());
            }
            self.run(digits);
        }
        if self.accept("eE") {
            self.accept("+-");
            self.run(digits);
        }
        if self.peek().is_some_and(is_alphanumeric) {
            self.at += 1;
            return Err((start as u32, format!("bad number syntax: {:?}", self.word(start))));
        }
        let token = Token::Number(self.word(start));
        self.emit(start, token);
        Ok(())
    }

    fn raw(&mut self) -> Result<Text, Refused> {
        let mut text = String::new();
        loop {
            match self.next() {
                None => return Err((self.at as u32, "literal not terminated".to_owned())),
                // Two of them stand for one.
                Some('`') if self.accept("`") => text.push('`'),
                Some('`') => return Ok(text.into()),
                Some(c) => text.push(c),
            }
        }
    }

    fn quoted(&mut self, quote: char, is_bytes: bool) -> Result<Text, Refused> {
        let mut out = Vec::new();
        loop {
            let at = self.at;
            let wrong = |what: &str| Err((at as u32, what.to_owned()));
            match self.next() {
                None => return wrong("literal not terminated"),
                Some('\n') => return wrong("literal not terminated"),
                Some(c) if c == quote => return Ok(out.into()),
                Some('\\') => {
                    let Some(sign) = self.next() else { return wrong("literal not terminated") };
                    if !self.escape(sign, is_bytes, &mut out) {
                        return wrong("unable to unescape string");
                    }
                }
                Some(c) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
    }

    /// Reads what stands behind a backslash; whether it means something.
    fn escape(&mut self, sign: char, is_bytes: bool, out: &mut Vec<u8>) -> bool {
        let plain = match sign {
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 11,
            '\\' | '\'' | '"' | '`' | '?' => sign as u8,
            'x' | 'X' | 'u' | 'U' => {
                let value = if sign == 'u' && self.accept("{") {
                    let start = self.at;
                    self.run("0123456789abcdefABCDEF");
                    let digits = self.word(start);
                    if digits.is_empty() || digits.len() > 6 || !self.accept("}") {
                        return false;
                    }
                    u32::from_str_radix(&digits, 16).ok()
                } else {
                    let count = match sign {
                        'u' => 4,
                        'U' => 8,
                        _ => 2,
                    };
                    let end = (self.at + count).min(self.characters.len());
                    let digits: String = self.characters[self.at..end].iter().collect();
                    self.at = end;
                    let is_whole = digits.len() == count && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
                    is_whole.then(|| u32::from_str_radix(&digits, 16).ok()).flatten()
                };
                return self.put(value, is_bytes && matches!(sign, 'x' | 'X'), out);
            }
            '0'..='3' => {
                let end = (self.at + 2).min(self.characters.len());
                let digits: String = sign.to_string() + &self.characters[self.at..end].iter().collect::<String>();
                self.at = end;
                let is_whole = digits.len() == 3 && digits.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
                let value = is_whole.then(|| u32::from_str_radix(&digits, 8).ok()).flatten();
                return self.put(value, is_bytes, out);
            }
            _ => return false,
        };
        out.push(plain);
        true
    }

    fn put(&self, value: Option<u32>, as_byte: bool, out: &mut Vec<u8>) -> bool {
        let Some(value) = value else { return false };
        if let (true, Ok(byte)) = (as_byte, u8::try_from(value)) {
            out.push(byte);
            return true;
        }
        let Some(c) = char::from_u32(value) else { return false };
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        true
    }
}
