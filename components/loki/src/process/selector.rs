//! Selectors of `stage.match`: `{app="web", env=~"p.*"} |= "error" !~ "debug"`.
//!
//! The language is that part of LogQL which the reference kept: label matchers, at least one, and line filters. Texts
//! stand in double quotes. Tokens are those of Go's `text/scanner`, so blanks and Go's comments may stand anywhere
//! between them.

use std::fmt;

use corten_signal::regex::{GoRegex, Lossy, RegexError};

/// The longest selector, in bytes.
const SELECTOR_BYTES_MAX: usize = 1 << 20;

/// A compiled selector.
#[derive(Debug)]
pub(super) struct Selector {
    matchers: Vec<Matcher>,
    filters: Vec<Filter>,
}

#[derive(Debug)]
struct Matcher {
    name: String,
    negated: bool,
    value: Wanted,
}

/// What must be found, or must not be if negated, in every line.
#[derive(Debug)]
struct Filter {
    negated: bool,
    wanted: Wanted,
}

enum Wanted {
    Text(String),
    Regex(Box<GoRegex>),
}

impl fmt::Debug for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wanted::Text(text) => write!(f, "{text:?}"),
            Wanted::Regex(regex) => write!(f, "/{}/", regex.as_str()),
        }
    }
}

/// Why a selector was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SelectorError {
    /// Its text is none: where, and what is wrong.
    Syntax { line: usize, column: usize, what: String },
    /// The regular expression of a label matcher.
    Matcher(RegexError),
    /// The regular expression of a line filter.
    Filter(RegexError),
    /// It has so many bytes.
    TooLong(usize),
}

/// In the words of the reference, which says more for mistakes in matchers than for those in filters.
impl fmt::Display for SelectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SYNTAX: &str = "invalid selector syntax for match stage";
        match self {
            SelectorError::Syntax { line, column, what } => {
                write!(f, "{SYNTAX}: parse error at line {line}, col {column}: {what}")
            }
            SelectorError::Matcher(error) => write!(f, "{SYNTAX}: {error}"),
            SelectorError::Filter(error) => write!(f, "error parsing pipeline: {error}"),
            SelectorError::TooLong(len) => {
                write!(f, "{SYNTAX}: selector of {len} bytes is longer than the limit of {SELECTOR_BYTES_MAX} bytes")
            }
        }
    }
}

impl Selector {
    /// Reads a selector.
    pub(super) fn new(text: &str) -> Result<Self, SelectorError> {
        if text.len() > SELECTOR_BYTES_MAX {
            return Err(SelectorError::TooLong(text.len()));
        }
        Parser { scanner: Scanner::new(text) }.selector()
    }

    /// Whether an entry may be selected, by its labels. A label that is absent is an empty one.
    pub(super) fn matches_labels<'l>(&self, label: impl Fn(&str) -> Option<&'l str>) -> bool {
        self.matchers.iter().all(|matcher| {
            let value = label(&matcher.name).unwrap_or_default();
            let found = match &matcher.value {
                Wanted::Text(text) => value == text,
                Wanted::Regex(regex) => regex.is_match(value),
            };
            found != matcher.negated
        })
    }

    /// Whether lines matter.
    pub(super) fn has_filters(&self) -> bool {
        !self.filters.is_empty()
    }

    /// Whether an entry may be selected, by its line.
    pub(super) fn matches_line(&self, line: &[u8], lossy: &mut Lossy) -> bool {
        self.filters.iter().all(|filter| {
            let found = match &filter.wanted {
                Wanted::Text(text) => memchr::memmem::find(line, text.as_bytes()).is_some(),
                Wanted::Regex(regex) => regex.is_match_bytes(line, lossy),
            };
            found != filter.negated
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    End,
    Identifier(String),
    Text(String),
    /// One of [`SIGNS`], by its place in the list.
    Sign(&'static str),
}

/// Signs in the order in which messages name them.
const SIGNS: [&str; 10] = ["=", "!=", "=~", "!~", "{", "}", ",", ".", "|~", "|="];

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Token::End => "$end",
            Token::Identifier(_) => "IDENTIFIER",
            Token::Text(_) => "STRING",
            Token::Sign(sign) => sign,
        })
    }
}

struct Parser<'a> {
    scanner: Scanner<'a>,
}

impl Parser<'_> {
    fn selector(mut self) -> Result<Selector, SelectorError> {
        self.sign(&["{"])?;
        let mut matchers = vec![self.matcher()?];
        while self.sign(&["}", ","])? == "," {
            matchers.push(self.matcher()?);
        }
        let mut filters = Vec::new();
        loop {
            let (negated, is_regex) = match self.scanner.token()? {
                Token::End => return Ok(Selector { matchers, filters }),
                Token::Sign("|=") => (false, false),
                Token::Sign("!=") => (true, false),
                Token::Sign("|~") => (false, true),
                Token::Sign("!~") => (true, true),
                other => return Err(self.unexpected(&other, &["!=", "!~", "|~", "|="])),
            };
            let text = self.text()?;
            let wanted = if is_regex {
                Wanted::Regex(Box::new(GoRegex::new(&text).map_err(SelectorError::Filter)?))
            } else {
                Wanted::Text(text)
            };
            filters.push(Filter { negated, wanted });
        }
    }

    fn matcher(&mut self) -> Result<Matcher, SelectorError> {
        let name = match self.scanner.token()? {
            Token::Identifier(name) => name,
            other => return Err(self.unexpected(&other, &["IDENTIFIER"])),
        };
        let sign = self.sign(&["=", "!=", "=~", "!~"])?;
        let text = self.text()?;
        let value = if sign.ends_with('~') {
            Wanted::Regex(Box::new(anchored(&text).map_err(SelectorError::Matcher)?))
        } else {
            Wanted::Text(text)
        };
        Ok(Matcher { name, negated: sign.starts_with('!'), value })
    }

    fn sign(&mut self, wanted: &[&str]) -> Result<&'static str, SelectorError> {
        match self.scanner.token()? {
            Token::Sign(sign) if wanted.contains(&sign) => Ok(sign),
            other => Err(self.unexpected(&other, wanted)),
        }
    }

    fn text(&mut self) -> Result<String, SelectorError> {
        match self.scanner.token()? {
            Token::Text(text) => Ok(text),
            other => Err(self.unexpected(&other, &["STRING"])),
        }
    }

    fn unexpected(&self, got: &Token, wanted: &[&str]) -> SelectorError {
        self.scanner.error(format!("syntax error: unexpected {got}, expecting {}", wanted.join(" or ")))
    }
}

/// The regular expression of a label matcher. Errors show it as the user wrote it.
fn anchored(text: &str) -> Result<GoRegex, RegexError> {
    GoRegex::anchored(text).map_err(|error| GoRegex::new(text).err().unwrap_or(error))
}

/// Splits a text into tokens.
struct Scanner<'a> {
    rest: &'a str,
    /// Of the next character.
    line: usize,
    column: usize,
    /// Of the token that was read last.
    at: (usize, usize),
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str) -> Self {
        Scanner { rest: text, line: 1, column: 1, at: (1, 1) }
    }

    fn error(&self, what: impl Into<String>) -> SelectorError {
        SelectorError::Syntax { line: self.at.0, column: self.at.1, what: what.into() }
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.rest = &self.rest[next.len_utf8()..];
        if next == '\n' {
            (self.line, self.column) = (self.line + 1, 1);
        } else {
            self.column += 1;
        }
        Some(next)
    }

    fn skip_while(&mut self, mut wanted: impl FnMut(char) -> bool) {
        while self.peek().is_some_and(&mut wanted) {
            self.next();
        }
    }

    fn skip_blanks_and_comments(&mut self) -> Result<(), SelectorError> {
        loop {
            self.skip_while(|next| matches!(next, ' ' | '\t' | '\r' | '\n'));
            self.at = (self.line, self.column);
            if self.rest.starts_with("//") {
                self.skip_while(|next| next != '\n');
            } else if let Some(comment) = self.rest.strip_prefix("/*") {
                let Some(len) = comment.find("*/") else { return Err(self.error("comment not terminated")) };
                let after = self.rest.len() - len - 4;
                while self.rest.len() > after {
                    self.next();
                }
            } else {
                return Ok(());
            }
        }
    }

    fn token(&mut self) -> Result<Token, SelectorError> {
        self.skip_blanks_and_comments()?;
        let before = self.rest;
        let Some(first) = self.next() else { return Ok(Token::End) };
        match first {
            '"' => return self.text(before),
            // What the reference's scanner takes as one token is an identifier to its parser.
            '`' | '\'' => {
                self.skip_while(|next| next != first);
                if self.next().is_none() {
                    return Err(self.error("literal not terminated"));
                }
            }
            _ if first == '_' || first.is_alphabetic() => {
                self.skip_while(|next| next == '_' || next.is_alphanumeric());
            }
            _ if first.is_ascii_digit() => self.skip_while(|next| next.is_ascii_digit()),
            _ => {
                let two = before.get(..2).and_then(|two| SIGNS.iter().find(|sign| **sign == two));
                let one = before.get(..1).and_then(|one| SIGNS.iter().find(|sign| **sign == one));
                if let Some(sign) = two {
                    self.next();
                    // The reference has lost the line by then, and its messages show that.
                    self.at.0 = 0;
                    return Ok(Token::Sign(sign));
                }
                if let Some(sign) = one {
                    return Ok(Token::Sign(sign));
                }
            }
        }
        Ok(Token::Identifier(before[..before.len() - self.rest.len()].to_owned()))
    }

    /// The text in double quotes that begins here; the first quote was read.
    fn text(&mut self, before: &str) -> Result<Token, SelectorError> {
        loop {
            match self.next() {
                Some('"') => break,
                Some('\\') => {
                    self.next();
                }
                Some('\n') | None => return Err(self.error("literal not terminated")),
                Some(_) => {}
            }
        }
        let literal = &before[..before.len() - self.rest.len()];
        match unquote(literal) {
            Some(text) => Ok(Token::Text(text)),
            None => Err(self.error("invalid char escape")),
        }
    }
}

/// The text that a literal with its double quotes stands for; nothing for escapes that Go does not know. Escapes may
/// denote bytes; those that are no UTF-8 in the end become U+FFFD.
fn unquote(literal: &str) -> Option<String> {
    let mut rest = literal.strip_prefix('"')?.strip_suffix('"')?;
    let mut bytes = Vec::with_capacity(rest.len());
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let escape = rest[at + 1..].chars().next()?;
        rest = &rest[at + 1 + escape.len_utf8()..];
        let mut number = |digits: usize, radix: u32| {
            let text = rest.get(..digits)?;
            rest = &rest[digits..];
            // A sign is no digit.
            text.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u32::from_str_radix(text, radix).ok())?
        };
        match escape {
            'a' => bytes.push(0x07),
            'b' => bytes.push(0x08),
            'f' => bytes.push(0x0c),
            'n' => bytes.push(b'\n'),
            'r' => bytes.push(b'\r'),
            't' => bytes.push(b'\t'),
            'v' => bytes.push(0x0b),
            '\\' | '"' => bytes.push(escape as u8),
            'x' => bytes.push(u8::try_from(number(2, 16)?).ok()?),
            'u' | 'U' => {
                let character = char::from_u32(number(if escape == 'u' { 4 } else { 8 }, 16)?)?;
                bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            '0'..='7' => {
                let value = number(2, 8)? + 64 * (u32::from(escape) - u32::from('0'));
                bytes.push(u8::try_from(value).ok()?);
            }
            _ => return None,
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn selects(selector: &str, labels: &[(&'static str, &'static str)], line: &str) -> bool {
        let selector = Selector::new(selector).unwrap();
        let label = |name: &str| labels.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        selector.matches_labels(label) && selector.matches_line(line.as_bytes(), &mut Lossy::new())
    }

    #[test]
    fn an_entry_is_selected_by_its_labels_and_its_line() {
        let labels = &[("app", "web"), ("env", "prod")];
        for (selector, expected) in [
            (r#"{app="web"}"#, true),
            (r#"{app!="web"}"#, false),
            (r#"{app=~"we"}"#, false),
            (r#"{app=~"we."}"#, true),
            (r#"{app!~"we."}"#, false),
            (r#"{missing=""}"#, true),
            (r#"{missing!=""}"#, false),
            (r#"{missing=~".*"}"#, true),
            (r#"{ app = "web" , env =~ ".+" }"#, true),
            (r#"{app="web",env="dev"}"#, false),
            (r#"{app="w\u0065b"}"#, true),
            (r#"{app="web"} |= "rr""#, true),
            (r#"{app="web"} |= """#, true),
            (r#"{app="web"} != "rr""#, false),
            (r#"{app="web"} |~ "e..or""#, true),
            (r#"{app="web"} |~ "^rr""#, false),
            (r#"{app="web"} !~ "^rr""#, true),
            (r#"{app="web"}|="err"!="warn"|~"(?i)ERR""#, true),
            (r#"{app="web"} |= "err" != "or""#, false),
            ("/* c */ {app=\"web\"} // all of them", true),
        ] {
            assert_eq!(selects(selector, labels, "an error"), expected, "{selector}");
        }
    }

    #[test]
    fn a_line_that_is_no_utf_8_is_searched() {
        let selector = Selector::new(r#"{a=""} |~ "^S.$" |= "S""#).unwrap();
        assert!(selector.matches_line(b"S\xff", &mut Lossy::new()));
        assert!(!selector.matches_line(b"S\xff\xff", &mut Lossy::new()));
    }

    #[test]
    fn what_is_wrong_with_a_selector_is_said() {
        for (selector, expected) in [
            (
                "{app}",
                "invalid selector syntax for match stage: parse error at line 1, col 5: syntax error: unexpected \
                       }, expecting = or != or =~ or !~",
            ),
            (r#"{app=~"("}"#, "invalid selector syntax for match stage: error parsing regexp: missing closing ): `(`"),
            (r#"{app="a"} |~ "(""#, "error parsing pipeline: error parsing regexp: missing closing ): `(`"),
        ] {
            assert_eq!(Selector::new(selector).unwrap_err().to_string(), expected, "{selector}");
        }
        for selector in [
            "",
            "{}",
            "{",
            "app=\"a\"",
            "{app=`a`}",
            "{app=\"a\",}",
            "{app=\"a\"",
            "{app=\"a\"} `x`",
            "{app=\"a\"} |=",
            "{app=\"a\"} | json",
            "{a.b=\"c\"}",
            "{app==\"a\"}",
            "{app=\"a\nb\"}",
            "{app=\"a\"}}",
            "{app=\"\\q\"}",
            "/*",
        ] {
            assert!(Selector::new(selector).is_err(), "{selector}");
        }
    }

    #[test]
    fn escapes_are_those_of_go() {
        for (literal, expected) in [
            (r#""a\tb\n\"\\""#, Some("a\tb\n\"\\")),
            (r#""\x41\101\u00e4\U0001f600""#, Some("AAä😀")),
            (r#""\xc3\xa4""#, Some("ä")),
            (r#""\xff""#, Some("\u{fffd}")),
            (r#""\ud800""#, None),
            (r#""\777""#, None),
            (r#""\+1""#, None),
            (r#""\x+1""#, None),
            (r#""\x4""#, None),
            (r#""\'""#, None),
            (r#""\é""#, None),
        ] {
            assert_eq!(unquote(literal).as_deref(), expected, "{literal}");
        }
    }

    #[test]
    fn a_selector_has_a_longest_length() {
        let long = format!("{{a=\"{}\"}}", "x".repeat(SELECTOR_BYTES_MAX));
        assert_eq!(Selector::new(&long).unwrap_err(), SelectorError::TooLong(long.len()));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[{}=!~|,. \\n\"'`/*a0é\\\\x]{0,40}") {
            let _ = Selector::new(&text);
        }

        #[test]
        fn what_is_written_as_a_selector_is_one(
            matchers in proptest::collection::vec(("[a-z_][a-z0-9_]{0,5}", "(=|!=|=~|!~)", "[a-z]{0,5}"), 1..4),
            filters in proptest::collection::vec(("(\\|=|!=|\\|~|!~)", "[a-z]{0,5}"), 0..4),
            blank in "[ \\n\\t]{0,2}",
        ) {
            let matchers: Vec<String> = matchers.iter().map(|(n, s, v)| format!("{n}{blank}{s}{blank}\"{v}\"")).collect();
            let filters: Vec<String> = filters.iter().map(|(s, v)| format!("{blank}{s}{blank}\"{v}\"")).collect();
            let text = format!("{{{blank}{}{blank}}}{}", matchers.join(","), filters.concat());
            let selector = Selector::new(&text);
            prop_assert!(selector.is_ok(), "{text}: {selector:?}");
            let selector = selector.unwrap();
            prop_assert_eq!((selector.matchers.len(), selector.filters.len()), (matchers.len(), filters.len()));
        }
    }
}
