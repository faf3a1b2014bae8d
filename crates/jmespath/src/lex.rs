//! Words of expressions.

use std::sync::Arc;

use crate::{Error, Value};

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    Star,
    Dot,
    Filter,
    Flatten,
    LeftParen,
    RightParen,
    LeftBracket,
    RightBracket,
    LeftBrace,
    RightBrace,
    Or,
    Pipe,
    Number(Box<str>),
    Name(Arc<str>),
    QuotedName(Arc<str>),
    Comma,
    Colon,
    Plus,
    Minus,
    Multiply,
    Divide,
    Modulo,
    /// `//`
    Div,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Equal,
    NotEqual,
    /// What stands between backticks.
    Json(Box<str>),
    String(Arc<str>),
    Current,
    Root,
    Reference,
    And,
    Not,
    Variable(Arc<str>),
    Assign,
    End,
}

impl Token {
    /// What error texts call it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Token::Star => "TOKStar",
            Token::Dot => "TOKDot",
            Token::Filter => "TOKFilter",
            Token::Flatten => "TOKFlatten",
            Token::LeftParen => "TOKLparen",
            Token::RightParen => "TOKRparen",
            Token::LeftBracket => "TOKLbracket",
            Token::RightBracket => "TOKRbracket",
            Token::LeftBrace => "TOKLbrace",
            Token::RightBrace => "TOKRbrace",
            Token::Or => "TOKOr",
            Token::Pipe => "TOKPipe",
            Token::Number(_) => "TOKNumber",
            Token::Name(_) => "TOKUnquotedIdentifier",
            Token::QuotedName(_) => "TOKQuotedIdentifier",
            Token::Comma => "TOKComma",
            Token::Colon => "TOKColon",
            Token::Plus => "TOKPlus",
            Token::Minus => "TOKMinus",
            Token::Multiply => "TOKMultiply",
            Token::Divide => "TOKDivide",
            Token::Modulo => "TOKModulo",
            Token::Div => "TOKDiv",
            Token::Less => "TOKLT",
            Token::LessEqual => "TOKLTE",
            Token::Greater => "TOKGT",
            Token::GreaterEqual => "TOKGTE",
            Token::Equal => "TOKEQ",
            Token::NotEqual => "TOKNE",
            Token::Json(_) => "TOKJSONLiteral",
            Token::String(_) => "TOKStringLiteral",
            Token::Current => "TOKCurrent",
            Token::Root => "TOKRoot",
            Token::Reference => "TOKExpref",
            Token::And => "TOKAnd",
            Token::Not => "TOKNot",
            Token::Variable(_) => "TOKVarref",
            Token::Assign => "TOKAssign",
            Token::End => "TOKEOF",
        }
    }
}

pub(crate) fn lex(text: &str) -> Result<Vec<Token>, Error> {
    let mut lexer = Lexer { text, at: 0 };
    let mut tokens = Vec::new();
    while let Some(character) = lexer.next() {
        let token = match character {
            ' ' | '\t' | '\n' | '\r' => continue,
            'a'..='z' | 'A'..='Z' | '_' => Token::Name(lexer.identifier(1).into()),
            '.' => Token::Dot,
            '*' => Token::Star,
            ',' => Token::Comma,
            ':' => Token::Colon,
            '{' => Token::LeftBrace,
            '}' => Token::RightBrace,
            ']' => Token::RightBracket,
            '(' => Token::LeftParen,
            ')' => Token::RightParen,
            '@' => Token::Current,
            '+' => Token::Plus,
            '%' => Token::Modulo,
            '\u{2212}' => Token::Minus,
            '\u{d7}' => Token::Multiply,
            '\u{f7}' => Token::Divide,
            '-' if lexer.peek().is_some_and(|next| next.is_ascii_digit()) => Token::Number(lexer.number().into()),
            '-' => Token::Minus,
            '0'..='9' => Token::Number(lexer.number().into()),
            '/' => lexer.either('/', Token::Div, Token::Divide),
            '[' if lexer.peek() == Some('?') => lexer.either('?', Token::Filter, Token::LeftBracket),
            '[' => lexer.either(']', Token::Flatten, Token::LeftBracket),
            '"' => lexer.quoted_name()?,
            '\'' => lexer.raw_string()?,
            '`' => lexer.json()?,
            '|' => lexer.either('|', Token::Or, Token::Pipe),
            '<' => lexer.either('=', Token::LessEqual, Token::Less),
            '>' => lexer.either('=', Token::GreaterEqual, Token::Greater),
            '!' => lexer.either('=', Token::NotEqual, Token::Not),
            '=' => lexer.either('=', Token::Equal, Token::Assign),
            '&' => lexer.either('&', Token::And, Token::Reference),
            '$' => match lexer.identifier(1) {
                "$" => Token::Root,
                name => Token::Variable(name.into()),
            },
            other => return Err(Error::syntax(format_args!("Unknown char: {}", quoted_rune(other)))),
        };
        tokens.push(token);
    }
    tokens.push(Token::End);
    Ok(tokens)
}

/// A character as Go prints it between single quotes, in ASCII.
fn quoted_rune(character: char) -> String {
    match character {
        '\x07' => "'\\a'".to_owned(),
        '\x08' => "'\\b'".to_owned(),
        '\x0c' => "'\\f'".to_owned(),
        '\x0b' => "'\\v'".to_owned(),
        '\\' => "'\\\\'".to_owned(),
        ' '..='~' => format!("'{character}'"),
        '\0'..='\x7f' => format!("'\\x{:02x}'", character as u32),
        '\u{80}'..='\u{ffff}' => format!("'\\u{:04x}'", character as u32),
        _ => format!("'\\U{:08x}'", character as u32),
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let character = self.peek()?;
        self.at += character.len_utf8();
        Some(character)
    }

    fn either(&mut self, second: char, both: Token, single: Token) -> Token {
        if self.peek() == Some(second) {
            self.at += second.len_utf8();
            both
        } else {
            single
        }
    }

    /// What goes on from so many bytes back as long as characters are of a kind.
    fn run(&mut self, back: usize, is_part: impl Fn(char) -> bool) -> &'a str {
        let start = self.at - back;
        while self.peek().is_some_and(&is_part) {
            self.next();
        }
        &self.text[start..self.at]
    }

    fn identifier(&mut self, back: usize) -> &'a str {
        self.run(back, |character| character.is_ascii_alphanumeric() || character == '_')
    }

    fn number(&mut self) -> &'a str {
        self.run(1, |character| character.is_ascii_digit())
    }

    /// What stands before a delimiter that no backslash precedes.
    fn until(&mut self, end: char) -> Result<&'a str, Error> {
        let start = self.at;
        while let Some(character) = self.next() {
            if character == end {
                return Ok(&self.text[start..self.at - end.len_utf8()]);
            }
            if character == '\\' {
                self.next();
            }
        }
        Err(Error::syntax(format_args!("Unclosed delimiter: {end}")))
    }

    fn quoted_name(&mut self) -> Result<Token, Error> {
        let inside = self.until('"')?;
        if let Some(control) = inside.chars().find(|character| *character < ' ') {
            return Err(Error::new(format!("invalid character {} in string literal", quoted_rune(control))));
        }
        match Value::from_json(format!("\"{inside}\"").as_bytes()) {
            Some(Value::String(name)) => Ok(Token::QuotedName(name)),
            _ => Err(Error::new("invalid character in string escape code")),
        }
    }

    fn raw_string(&mut self) -> Result<Token, Error> {
        let mut out = String::new();
        while let Some(character) = self.next() {
            match (character, self.peek()) {
                ('\'', _) => return Ok(Token::String(out.into())),
                ('\\', Some(escaped @ ('\'' | '\\'))) => {
                    out.push(escaped);
                    self.next();
                }
                (other, _) => out.push(other),
            }
        }
        Err(Error::syntax("Unclosed delimiter: '"))
    }

    fn json(&mut self) -> Result<Token, Error> {
        Ok(Token::Json(self.until('`')?.replace("\\`", "`").into()))
    }
}
