//! Text to tokens.
//!
//! The tokens cover the text without gaps: white space, comments and a byte order mark are tokens too, so that joining
//! the texts of all tokens gives the source.

use crate::diag::DIAGNOSTICS_MAX;
use crate::quote::{character_name, is_digit, is_letter};
use crate::source::{SourceFile, Span};

/// A token with its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// What kind of token it is.
    pub kind: TokenKind,
    /// Its bytes. A terminator that no newline of its own stands for is empty.
    pub span: Span,
}

/// The kinds of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// A byte order mark at the start.
    ByteOrderMark,
    /// Spaces, tabs, carriage returns and newlines that end nothing.
    Whitespace,
    /// `// …` or `/* … */`.
    Comment,
    /// What the language does not have; a diagnostic says why.
    Illegal,
    /// The end of the text.
    Eof,
    /// The end of a statement or of an element: a newline, or an empty token before a comment or the end.
    Terminator,
    /// A name.
    Ident,
    /// Digits.
    Number,
    /// Digits with a point or an exponent.
    Float,
    /// A string in quotes or backticks.
    String,
    /// `true` or `false`.
    Bool,
    /// `null`.
    Null,
    /// `||`
    Or,
    /// `&&`
    And,
    /// `!`
    Not,
    /// `=`
    Assign,
    /// `==`
    Eq,
    /// `!=`
    Ne,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `>`
    Gt,
    /// `>=`
    Ge,
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
    /// `%`
    Mod,
    /// `^`
    Pow,
    /// `{`
    OpenBrace,
    /// `}`
    CloseBrace,
    /// `(`
    OpenParen,
    /// `)`
    CloseParen,
    /// `[`
    OpenBracket,
    /// `]`
    CloseBracket,
    /// `,`
    Comma,
    /// `.`
    Dot,
}

impl TokenKind {
    /// The name that diagnostics use.
    pub fn name(self) -> &'static str {
        match self {
            TokenKind::ByteOrderMark | TokenKind::Whitespace => "whitespace",
            TokenKind::Comment => "COMMENT",
            TokenKind::Illegal => "ILLEGAL",
            TokenKind::Eof => "EOF",
            TokenKind::Terminator => "TERMINATOR",
            TokenKind::Ident => "IDENT",
            TokenKind::Number => "NUMBER",
            TokenKind::Float => "FLOAT",
            TokenKind::String => "STRING",
            TokenKind::Bool => "BOOL",
            TokenKind::Null => "NULL",
            TokenKind::Or => "||",
            TokenKind::And => "&&",
            TokenKind::Not => "!",
            TokenKind::Assign => "=",
            TokenKind::Eq => "==",
            TokenKind::Ne => "!=",
            TokenKind::Lt => "<",
            TokenKind::Le => "<=",
            TokenKind::Gt => ">",
            TokenKind::Ge => ">=",
            TokenKind::Add => "+",
            TokenKind::Sub => "-",
            TokenKind::Mul => "*",
            TokenKind::Div => "/",
            TokenKind::Mod => "%",
            TokenKind::Pow => "^",
            TokenKind::OpenBrace => "{",
            TokenKind::CloseBrace => "}",
            TokenKind::OpenParen => "(",
            TokenKind::CloseParen => ")",
            TokenKind::OpenBracket => "[",
            TokenKind::CloseBracket => "]",
            TokenKind::Comma => ",",
            TokenKind::Dot => ".",
        }
    }

    /// Whether the parser passes over the token.
    pub fn is_trivia(self) -> bool {
        matches!(self, TokenKind::ByteOrderMark | TokenKind::Whitespace | TokenKind::Comment)
    }

    /// Whether a newline after the token ends something.
    fn ends_with_line(self) -> bool {
        matches!(
            self,
            TokenKind::Ident
                | TokenKind::Number
                | TokenKind::Float
                | TokenKind::String
                | TokenKind::Bool
                | TokenKind::Null
                | TokenKind::CloseBrace
                | TokenKind::CloseParen
                | TokenKind::CloseBracket
        )
    }
}

/// A defect of the text below the level of tokens.
#[derive(Debug)]
pub(crate) struct LexError {
    /// How many tokens there were when it was found. The parser reports it when it has come that far, so that the
    /// errors of both stand in the order in which a reader meets them.
    pub(crate) after_tokens: usize,
    pub(crate) offset: u32,
    pub(crate) message: String,
}

/// The tokens of a source, the last of which is [`TokenKind::Eof`], and the defects.
pub(crate) fn lex(source: &SourceFile) -> (Vec<Token>, Vec<LexError>) {
    let mut lexer = Lexer {
        text: source.text(),
        current: None,
        offset: 0,
        next_offset: 0,
        checked: 0,
        line_ends: false,
        // Configurations have a token for every three to four bytes, white space included.
        tokens: Vec::with_capacity(source.text().len() / 3 + 1),
        errors: Vec::new(),
    };
    lexer.bump();
    if lexer.current == Some(BYTE_ORDER_MARK) {
        lexer.bump();
        lexer.push(TokenKind::ByteOrderMark, 0);
    }
    while lexer.token() != TokenKind::Eof {}
    (lexer.tokens, lexer.errors)
}

const BYTE_ORDER_MARK: char = '\u{feff}';

struct Lexer<'a> {
    text: &'a str,
    /// The character at `offset`; `None` at the end.
    current: Option<char>,
    offset: usize,
    next_offset: usize,
    /// Characters before this offset have been checked, so that looking ahead reports nothing twice.
    checked: usize,
    /// Whether a newline ends something here.
    line_ends: bool,
    tokens: Vec<Token>,
    errors: Vec<LexError>,
}

impl Lexer<'_> {
    fn bump(&mut self) {
        self.offset = self.next_offset;
        let bytes = self.text.as_bytes();
        let character = match bytes.get(self.offset) {
            None => {
                self.current = None;
                return;
            }
            Some(byte) if byte.is_ascii() => char::from(*byte),
            Some(_) => self.text[self.offset..].chars().next().unwrap_or_default(),
        };
        self.current = Some(character);
        self.next_offset += character.len_utf8();
        if self.offset >= self.checked {
            self.checked = self.next_offset;
            if character == '\0' {
                self.error(self.offset, "illegal character NUL");
            } else if character == BYTE_ORDER_MARK && self.offset > 0 {
                self.error(self.offset, "illegal byte order mark");
            }
        }
    }

    /// Goes back to a character that was seen before.
    fn rewind(&mut self, offset: usize) {
        self.next_offset = offset;
        self.bump();
    }

    fn peek_byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.next_offset).copied()
    }

    fn error(&mut self, offset: usize, message: impl Into<String>) {
        if self.errors.len() >= DIAGNOSTICS_MAX {
            return;
        }
        self.errors.push(LexError { after_tokens: self.tokens.len(), offset: offset as u32, message: message.into() });
    }

    fn push(&mut self, kind: TokenKind, start: usize) -> TokenKind {
        self.tokens.push(Token { kind, span: Span::new(start as u32, self.offset as u32) });
        kind
    }

    fn eat(&mut self, character: char) -> bool {
        let found = self.current == Some(character);
        if found {
            self.bump();
        }
        found
    }

    /// Adds the next token, and the white space before it.
    fn token(&mut self) -> TokenKind {
        let start = self.offset;
        self.skip_whitespace();
        if self.offset > start {
            self.push(TokenKind::Whitespace, start);
        }

        let start = self.offset;
        let Some(character) = self.current else {
            let kind = if self.line_ends { TokenKind::Terminator } else { TokenKind::Eof };
            self.line_ends = false;
            return self.push(kind, start);
        };
        let kind = match character {
            _ if is_letter(character) => self.identifier(start),
            '0'..='9' => self.number(start),
            '.' if self.peek_byte().is_some_and(|byte| byte.is_ascii_digit()) => self.number(start),
            // Comments leave before the rest, because they may be preceded by a terminator.
            '/' if matches!(self.peek_byte(), Some(b'/' | b'*')) => {
                if self.line_ends {
                    let ends = self.only_comments_to_line_end();
                    self.rewind(start);
                    if ends {
                        self.line_ends = false;
                        return self.push(TokenKind::Terminator, start);
                    }
                }
                self.comment(start);
                TokenKind::Comment
            }
            _ => {
                self.bump();
                self.symbol(start, character)
            }
        };
        // What the language does not have changes nothing about the line.
        if kind != TokenKind::Illegal || character == '\'' {
            self.line_ends = kind.ends_with_line() || kind == TokenKind::Illegal;
        }
        self.push(kind, start)
    }

    /// The token that starts with a character that has been passed.
    fn symbol(&mut self, start: usize, character: char) -> TokenKind {
        let mut pair = |second, one, two| if self.eat(second) { two } else { one };
        match character {
            // White space has been skipped up to a newline that ends something.
            '\n' => TokenKind::Terminator,
            '!' => pair('=', TokenKind::Not, TokenKind::Ne),
            '=' => pair('=', TokenKind::Assign, TokenKind::Eq),
            '<' => pair('=', TokenKind::Lt, TokenKind::Le),
            '>' => pair('=', TokenKind::Gt, TokenKind::Ge),
            '|' => {
                if !self.eat('|') {
                    self.error(self.offset, "missing second | in ||");
                }
                TokenKind::Or
            }
            '&' => {
                if !self.eat('&') {
                    self.error(self.offset, "missing second & in &&");
                }
                TokenKind::And
            }
            '"' => self.string(start, '"'),
            '`' => self.string(start, '`'),
            '\'' => {
                self.error(start, "illegal single-quoted string; use double quotes");
                self.string(start, '\'');
                TokenKind::Illegal
            }
            '+' => TokenKind::Add,
            '-' => TokenKind::Sub,
            '*' => TokenKind::Mul,
            '/' => TokenKind::Div,
            '%' => TokenKind::Mod,
            '^' => TokenKind::Pow,
            '{' => TokenKind::OpenBrace,
            '}' => TokenKind::CloseBrace,
            '(' => TokenKind::OpenParen,
            ')' => TokenKind::CloseParen,
            '[' => TokenKind::OpenBracket,
            ']' => TokenKind::CloseBracket,
            ',' => TokenKind::Comma,
            '.' => TokenKind::Dot,
            _ => {
                // A misplaced byte order mark was reported when it was read.
                if character != BYTE_ORDER_MARK {
                    self.error(start, format!("illegal character {}", character_name(character)));
                }
                TokenKind::Illegal
            }
        }
    }

    fn skip_whitespace(&mut self) {
        loop {
            match self.current {
                Some(' ' | '\t' | '\r') => self.bump(),
                Some('\n') if !self.line_ends => self.bump(),
                _ => return,
            }
        }
    }

    fn identifier(&mut self, start: usize) -> TokenKind {
        while self.current.is_some_and(|character| is_letter(character) || is_digit(character)) {
            self.bump();
        }
        match &self.text[start..self.offset] {
            "true" | "false" => TokenKind::Bool,
            "null" => TokenKind::Null,
            _ => TokenKind::Ident,
        }
    }

    fn number(&mut self, start: usize) -> TokenKind {
        let mut kind = TokenKind::Number;
        self.digits();
        if self.eat('.') {
            kind = TokenKind::Float;
            self.digits();
        }
        if self.eat('e') || self.eat('E') {
            kind = TokenKind::Float;
            if !self.eat('+') {
                self.eat('-');
            }
            if self.digits() == 0 {
                self.error(start, "exponent has no digits");
            }
        }
        kind
    }

    fn digits(&mut self) -> usize {
        let start = self.offset;
        while self.current.is_some_and(|character| character.is_ascii_digit()) {
            self.bump();
        }
        self.offset - start
    }

    fn string(&mut self, start: usize, quote: char) -> TokenKind {
        let raw = quote == '`';
        loop {
            match self.current {
                None => {
                    self.error(start, "string literal not terminated");
                    break;
                }
                Some('\n') if !raw => {
                    self.error(start, "string literal not terminated");
                    break;
                }
                Some(character) => {
                    self.bump();
                    if character == quote {
                        break;
                    }
                    if character == '\\' && !raw {
                        self.escape();
                    }
                }
            }
        }
        TokenKind::String
    }

    /// Checks what stands after a backslash. A character that does not belong there is left where it is.
    fn escape(&mut self) {
        let start = self.offset;
        let (digits, base, max) = match self.current {
            Some('a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\' | '"') => return self.bump(),
            Some('0'..='7') => (3, 8, 0xff),
            Some('x') => (2, 16, 0xff),
            Some('u') => (4, 16, 0x10_ffff),
            Some('U') => (8, 16, 0x10_ffff),
            Some(_) => return self.error(start, "unknown escape sequence"),
            None => return self.error(start, "escape sequence not terminated"),
        };
        if base == 16 {
            self.bump();
        }
        let mut code: u32 = 0;
        for _ in 0..digits {
            let Some(character) = self.current else {
                return self.error(start, "escape sequence not terminated");
            };
            let Some(digit) = character.to_digit(base) else {
                return self
                    .error(start, format!("illegal character {} in escape sequence", character_name(character)));
            };
            // Eight hexadecimal digits just fit.
            code = code.wrapping_mul(base).wrapping_add(digit);
            self.bump();
        }
        if code > max || (0xd800..0xe000).contains(&code) {
            self.error(start, "escape sequence is invalid Unicode code point");
        }
    }

    fn comment(&mut self, start: usize) {
        self.bump();
        if self.eat('/') {
            while self.current.is_some_and(|character| character != '\n') {
                self.bump();
            }
        } else if !self.block_comment(|_| true) {
            self.error(start, "block comment not terminated");
        }
    }

    /// Passes a block comment from its star on. Gives up where `go_on` says no. Returns whether it came to the end.
    fn block_comment(&mut self, go_on: impl Fn(char) -> bool) -> bool {
        self.bump();
        while let Some(character) = self.current {
            if !go_on(character) {
                return false;
            }
            self.bump();
            if character == '*' && self.eat('/') {
                return true;
            }
        }
        false
    }

    /// Looks ahead from a slash: whether nothing but comments stands on the rest of the line, or a comment goes on to
    /// the next. The caller goes back to the slash.
    fn only_comments_to_line_end(&mut self) -> bool {
        while self.current == Some('/') {
            self.bump();
            match self.current {
                Some('/') => return true,
                Some('*') => {}
                _ => return false,
            }
            if !self.block_comment(|character| character != '\n') && self.current.is_some() {
                return true;
            }
            self.skip_whitespace();
            if matches!(self.current, None | Some('\n')) {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Token names, and texts of those that have one of their own.
    fn tokens(text: &str) -> String {
        let source = SourceFile::new("", text);
        let (tokens, _) = lex(&source);
        let shown = tokens.iter().filter(|token| !token.kind.is_trivia()).map(|token| match token.kind {
            TokenKind::Eof | TokenKind::Terminator => token.kind.name().to_owned(),
            _ => format!("{}:{}", token.kind.name(), source.slice(token.span)),
        });
        shown.collect::<Vec<_>>().join(" ")
    }

    fn errors(text: &str) -> Vec<String> {
        let source = SourceFile::new("", text);
        let (_, errors) = lex(&source);
        errors.iter().map(|error| format!("{}: {}", source.position(error.offset), error.message)).collect()
    }

    #[test]
    fn a_newline_ends_a_line_only_after_what_can_end_a_statement() {
        let cases = [
            ("", "EOF"),
            ("\n\n", "EOF"),
            ("a", "IDENT:a TERMINATOR EOF"),
            ("a\n\nb\n", "IDENT:a TERMINATOR IDENT:b TERMINATOR EOF"),
            ("1 +\n2", "NUMBER:1 +:+ NUMBER:2 TERMINATOR EOF"),
            ("[\n]\n", "[:[ ]:] TERMINATOR EOF"),
            ("a // c\nb", "IDENT:a TERMINATOR IDENT:b TERMINATOR EOF"),
            ("a /* c */ b", "IDENT:a IDENT:b TERMINATOR EOF"),
            ("a /* c */ /* d */ // e", "IDENT:a TERMINATOR EOF"),
            ("a /* c\n */ b", "IDENT:a TERMINATOR IDENT:b TERMINATOR EOF"),
            ("a /* c */ / b", "IDENT:a /:/ IDENT:b TERMINATOR EOF"),
            ("a @\nb", "IDENT:a ILLEGAL:@ TERMINATOR IDENT:b TERMINATOR EOF"),
            (", @\nb", ",:, ILLEGAL:@ IDENT:b TERMINATOR EOF"),
            ("a /* open", "IDENT:a TERMINATOR EOF"),
        ];
        for (text, expected) in cases {
            assert_eq!(tokens(text), expected, "{text:?}");
        }
    }

    #[test]
    fn numbers_are_digits_points_and_exponents() {
        let cases = [
            ("1.", "FLOAT:1. TERMINATOR EOF"),
            (".5", "FLOAT:.5 TERMINATOR EOF"),
            ("1.5e+3", "FLOAT:1.5e+3 TERMINATOR EOF"),
            ("1E3", "FLOAT:1E3 TERMINATOR EOF"),
            ("0x10", "NUMBER:0 IDENT:x10 TERMINATOR EOF"),
            ("1..5", "FLOAT:1. FLOAT:.5 TERMINATOR EOF"),
            (".", ".:. EOF"),
            ("-1", "-:- NUMBER:1 TERMINATOR EOF"),
        ];
        for (text, expected) in cases {
            assert_eq!(tokens(text), expected, "{text:?}");
        }
    }

    #[test]
    fn keywords_are_no_identifiers() {
        assert_eq!(tokens("true false null é_1"), "BOOL:true BOOL:false NULL:null IDENT:é_1 TERMINATOR EOF");
    }

    #[test]
    fn defects_of_characters_and_strings_are_reported_where_they_are() {
        let cases: &[(&str, &[&str])] = &[
            ("\u{feff}a", &[]),
            ("a\u{feff}", &["1:2: illegal byte order mark"]),
            ("a // \u{feff}\n", &["1:6: illegal byte order mark"]),
            ("\0", &["1:1: illegal character NUL", "1:1: illegal character U+0000"]),
            ("@", &["1:1: illegal character U+0040 '@'"]),
            ("a | b", &["1:4: missing second | in ||"]),
            ("&", &["1:2: missing second & in &&"]),
            ("  \"abc\n", &["1:3: string literal not terminated"]),
            ("`abc\n", &["1:1: string literal not terminated"]),
            ("/* a", &["1:1: block comment not terminated"]),
            ("a /* a", &["1:3: block comment not terminated"]),
            (r#""\q""#, &["1:3: unknown escape sequence"]),
            (r#""\'""#, &["1:3: unknown escape sequence"]),
            ("\"\\", &["1:3: escape sequence not terminated", "1:1: string literal not terminated"]),
            (r#""\x4"#, &["1:3: escape sequence not terminated", "1:1: string literal not terminated"]),
            (r#""\xg0""#, &["1:3: illegal character U+0067 'g' in escape sequence"]),
            (r#""\08""#, &["1:3: illegal character U+0038 '8' in escape sequence"]),
            (r#""\400""#, &["1:3: escape sequence is invalid Unicode code point"]),
            (r#""\ud800""#, &["1:3: escape sequence is invalid Unicode code point"]),
            (r#""\UFFFFFFFF""#, &["1:3: escape sequence is invalid Unicode code point"]),
            (r#""\a\b\f\n\r\t\v\\\"\101\x41\u00e9\U0001F600""#, &[]),
            ("1e", &["1:1: exponent has no digits"]),
            ("1e+", &["1:1: exponent has no digits"]),
            ("'a'", &["1:1: illegal single-quoted string; use double quotes"]),
        ];
        for (text, expected) in cases {
            assert_eq!(errors(text), *expected, "{text:?}");
        }
    }
}
