//! The tokens of templates, as Go's `text/template` cuts them.

use crate::text;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Error,
    Bool,
    Char,
    CharConstant,
    Complex,
    Assign,
    Declare,
    Eof,
    Field,
    Identifier,
    LeftDelim,
    LeftParen,
    Number,
    Pipe,
    RawString,
    RightDelim,
    RightParen,
    Space,
    String,
    Text,
    Variable,
    // Keywords.
    Block,
    Break,
    Continue,
    Dot,
    Define,
    Else,
    End,
    If,
    Nil,
    Range,
    Template,
    With,
}

impl Kind {
    fn is_keyword(self) -> bool {
        use Kind::*;
        matches!(self, Block | Break | Continue | Dot | Define | Else | End | If | Nil | Range | Template | With)
    }
}

/// A token: what it is, where it begins and in which line, and its text. An error has its message as text.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) pos: usize,
    pub(super) line: usize,
    pub(super) text: String,
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind {
            Kind::Eof => f.write_str("EOF"),
            Kind::Error => f.write_str(&self.text),
            kind if kind.is_keyword() => write!(f, "<{}>", self.text),
            _ if self.text.len() > 10 => {
                let short: String = self.text.chars().take(10).collect();
                write!(f, "{}...", text::quote(short.as_bytes()))
            }
            _ => f.write_str(&text::quote(self.text.as_bytes())),
        }
    }
}

const LEFT: &str = "{{";
const RIGHT: &str = "}}";
const SPACES: [char; 4] = [' ', '\t', '\r', '\n'];
/// The marker that trims, and the space that goes with it.
const MARKER_LEN: usize = 2;

/// What comes next in the text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Text,
    Action,
    /// An error has ended the text.
    Over,
}

/// Cuts a template into tokens, one a call. After an error there are only ends.
pub(super) struct Lexer<'a> {
    input: &'a str,
    pos: usize,
    start: usize,
    place: Place,
    parens: usize,
    line: usize,
    start_line: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(input: &'a str) -> Self {
        Lexer { input, pos: 0, start: 0, place: Place::Text, parens: 0, line: 1, start_line: 1 }
    }

    pub(super) fn next(&mut self) -> Token {
        match self.place {
            Place::Text => self.text(),
            Place::Action => self.action(),
            Place::Over => Token { kind: Kind::Eof, pos: 0, line: self.start_line, text: String::new() },
        }
    }

    fn rest(&self) -> &'a str {
        &self.input[self.pos..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn advance(&mut self) -> Option<char> {
        let character = self.peek()?;
        self.pos += character.len_utf8();
        self.line += usize::from(character == '\n');
        Some(character)
    }

    fn accept(&mut self, valid: &str) -> bool {
        let accepted = self.peek().is_some_and(|character| valid.contains(character));
        if accepted {
            self.advance();
        }
        accepted
    }

    fn accept_run(&mut self, valid: &str) {
        while self.accept(valid) {}
    }

    /// The token that ends here.
    fn token(&mut self, kind: Kind) -> Token {
        let token =
            Token { kind, pos: self.start, line: self.start_line, text: self.input[self.start..self.pos].to_owned() };
        self.start = self.pos;
        self.start_line = self.line;
        token
    }

    /// Skips to a place.
    fn skip(&mut self, to: usize) {
        self.line += lines(&self.input[self.pos..to]);
        self.pos = to;
        self.start = to;
        self.start_line = self.line;
    }

    fn error(&mut self, message: impl Into<String>) -> Token {
        self.place = Place::Over;
        Token { kind: Kind::Error, pos: self.start, line: self.start_line, text: message.into() }
    }

    fn text(&mut self) -> Token {
        loop {
            let Some(offset) = self.rest().find(LEFT) else {
                self.line += lines(self.rest());
                self.pos = self.input.len();
                return self.token(if self.pos > self.start { Kind::Text } else { Kind::Eof });
            };
            if offset > 0 {
                let delim = self.pos + offset;
                let before = &self.input[self.pos..delim];
                let shown = match has_left_marker(&self.input[delim + LEFT.len()..]) {
                    true => before.trim_end_matches(SPACES).len(),
                    false => before.len(),
                };
                let end = self.pos + shown;
                self.line += lines(&self.input[self.pos..end]);
                self.pos = end;
                let token = self.token(Kind::Text);
                self.skip(delim);
                if !token.text.is_empty() {
                    return token;
                }
            }
            // The delimiter, with its marker.
            let delim = self.pos;
            self.pos += LEFT.len();
            let marker = if has_left_marker(self.rest()) { MARKER_LEN } else { 0 };
            if self.rest()[marker..].starts_with("/*") {
                self.start = self.pos + marker;
                self.line += lines(&self.input[self.pos..self.start]);
                self.pos = self.start;
                self.start_line = self.line;
                match self.comment() {
                    Some(error) => return error,
                    None => continue,
                }
            }
            self.start = delim;
            let token = self.token(Kind::LeftDelim);
            self.place = Place::Action;
            self.skip(self.pos + marker);
            self.parens = 0;
            return token;
        }
    }

    fn comment(&mut self) -> Option<Token> {
        let Some(len) = self.rest()[2..].find("*/") else { return Some(self.error("unclosed comment")) };
        let end = self.pos + 2 + len + 2;
        let after = &self.input[end..];
        let trims = has_right_marker(after) && after[MARKER_LEN..].starts_with(RIGHT);
        if !trims && !after.starts_with(RIGHT) {
            return Some(self.error("comment ends before closing delimiter"));
        }
        let mut to = end + RIGHT.len();
        if trims {
            to += MARKER_LEN;
            to += leading_spaces(&self.input[to..]);
        }
        self.skip(to);
        None
    }

    /// Whether a right delimiter stands here, and whether it trims.
    fn at_right(&self) -> Option<bool> {
        let rest = self.rest();
        if has_right_marker(rest) && rest[MARKER_LEN..].starts_with(RIGHT) {
            return Some(true);
        }
        rest.starts_with(RIGHT).then_some(false)
    }

    fn right(&mut self, trims: bool) -> Token {
        if trims {
            self.skip(self.pos + MARKER_LEN);
        }
        self.pos += RIGHT.len();
        let token = self.token(Kind::RightDelim);
        if trims {
            self.skip(self.pos + leading_spaces(self.rest()));
        }
        self.place = Place::Text;
        token
    }

    fn action(&mut self) -> Token {
        if let Some(trims) = self.at_right() {
            if self.parens == 0 {
                return self.right(trims);
            }
            return self.error("unclosed left paren");
        }
        let Some(character) = self.peek() else { return self.error("unclosed action") };
        if is_space(character) {
            return self.space();
        }
        if character.is_ascii_digit() || matches!(character, '+' | '-') {
            return self.number();
        }
        if is_alphanumeric(character) {
            return self.identifier();
        }
        self.advance();
        match character {
            '=' => self.token(Kind::Assign),
            ':' => {
                if self.advance() != Some('=') {
                    return self.error("expected :=");
                }
                self.token(Kind::Declare)
            }
            '|' => self.token(Kind::Pipe),
            '"' => self.quoted('"', Kind::String, "unterminated quoted string"),
            '\'' => self.quoted('\'', Kind::CharConstant, "unterminated character constant"),
            '`' => {
                while let Some(character) = self.advance() {
                    if character == '`' {
                        return self.token(Kind::RawString);
                    }
                }
                self.error("unterminated raw quoted string")
            }
            '$' => self.name(Kind::Variable),
            '.' if self.peek().is_some_and(|next| !next.is_ascii_digit()) => self.name(Kind::Field),
            '.' => {
                self.pos -= 1;
                self.number()
            }
            '(' => {
                self.parens += 1;
                self.token(Kind::LeftParen)
            }
            ')' => {
                if self.parens == 0 {
                    return self.error("unexpected right paren");
                }
                self.parens -= 1;
                self.token(Kind::RightParen)
            }
            ' '..='~' => self.token(Kind::Char),
            _ => self.error(format!("unrecognized character in action: {}", text::character_name(character))),
        }
    }

    fn space(&mut self) -> Token {
        let first = self.pos;
        while self.peek().is_some_and(is_space) {
            self.advance();
        }
        // The last space may belong to the marker of a delimiter.
        let last = &self.input[self.pos - 1..];
        if has_right_marker(last) && last[MARKER_LEN..].starts_with(RIGHT) {
            self.pos -= 1;
            self.line -= usize::from(last.starts_with('\n'));
            if self.pos == first {
                return self.right(true);
            }
        }
        self.token(Kind::Space)
    }

    fn identifier(&mut self) -> Token {
        while self.peek().is_some_and(is_alphanumeric) {
            self.advance();
        }
        if !self.at_terminator() {
            return self.bad_character();
        }
        let kind = match &self.input[self.start..self.pos] {
            "block" => Kind::Block,
            "break" => Kind::Break,
            "continue" => Kind::Continue,
            "define" => Kind::Define,
            "else" => Kind::Else,
            "end" => Kind::End,
            "if" => Kind::If,
            "range" => Kind::Range,
            "nil" => Kind::Nil,
            "template" => Kind::Template,
            "with" => Kind::With,
            "true" | "false" => Kind::Bool,
            _ => Kind::Identifier,
        };
        self.token(kind)
    }

    fn bad_character(&mut self) -> Token {
        let name = self.peek().map_or_else(|| "U+FFFFFFFFFFFFFFFF".to_owned(), text::character_name);
        self.error(format!("bad character {name}"))
    }

    /// A field or a variable, behind its first character.
    fn name(&mut self, kind: Kind) -> Token {
        if self.at_terminator() {
            return self.token(if kind == Kind::Field { Kind::Dot } else { kind });
        }
        while self.peek().is_some_and(is_alphanumeric) {
            self.advance();
        }
        if !self.at_terminator() {
            return self.bad_character();
        }
        self.token(kind)
    }

    /// Whether what stands here may follow a name.
    fn at_terminator(&self) -> bool {
        match self.peek() {
            None => true,
            Some(character) if is_space(character) => true,
            Some('.' | ',' | '|' | ':' | ')' | '(') => true,
            Some(_) => self.rest().starts_with(RIGHT),
        }
    }

    fn quoted(&mut self, quote: char, kind: Kind, unterminated: &str) -> Token {
        loop {
            match self.advance() {
                None | Some('\n') => return self.error(unterminated),
                Some('\\') => {
                    if matches!(self.advance(), None | Some('\n')) {
                        return self.error(unterminated);
                    }
                }
                Some(character) if character == quote => return self.token(kind),
                Some(_) => {}
            }
        }
    }

    fn number(&mut self) -> Token {
        let mut good = self.scan_number();
        let mut kind = Kind::Number;
        if good && matches!(self.peek(), Some('+' | '-')) {
            kind = Kind::Complex;
            good = self.scan_number() && self.input[..self.pos].ends_with('i');
        }
        if good {
            return self.token(kind);
        }
        let text = text::quote(&self.input.as_bytes()[self.start..self.pos]);
        self.error(format!("bad number syntax: {text}"))
    }

    fn scan_number(&mut self) -> bool {
        const DECIMAL: &str = "0123456789_";
        const HEXADECIMAL: &str = "0123456789abcdefABCDEF_";
        self.accept("+-");
        let mut digits = DECIMAL;
        if self.accept("0") {
            if self.accept("xX") {
                digits = HEXADECIMAL;
            } else if self.accept("oO") {
                digits = "01234567_";
            } else if self.accept("bB") {
                digits = "01_";
            }
        }
        self.accept_run(digits);
        if self.accept(".") {
            self.accept_run(digits);
        }
        if digits == DECIMAL && self.accept("eE") || digits == HEXADECIMAL && self.accept("pP") {
            self.accept("+-");
            self.accept_run(DECIMAL);
        }
        self.accept("i");
        if self.peek().is_some_and(is_alphanumeric) {
            self.advance();
            return false;
        }
        true
    }
}

fn lines(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'\n').count()
}

fn leading_spaces(text: &str) -> usize {
    text.len() - text.trim_start_matches(SPACES).len()
}

fn is_space(character: char) -> bool {
    SPACES.contains(&character)
}

fn is_alphanumeric(character: char) -> bool {
    character == '_' || text::is_letter(character) || text::is_digit(character)
}

fn has_left_marker(text: &str) -> bool {
    matches!(text.as_bytes(), [b'-', b' ' | b'\t' | b'\r' | b'\n', ..])
}

fn has_right_marker(text: &str) -> bool {
    matches!(text.as_bytes(), [b' ' | b'\t' | b'\r' | b'\n', b'-', ..])
}
