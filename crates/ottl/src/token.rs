//! The words of the language.

use crate::error::Fault;

/// A word.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    /// A name of any kind. Keywords are names too.
    Name(String),
    /// A text. It need not be UTF-8.
    Text(Vec<u8>),
    /// `0x` and hexadecimal digits.
    Bytes(Vec<u8>),
    /// A whole number.
    Int(i64),
    /// A number with a point.
    Float(f64),
    /// What is written with one or two signs.
    Sign(&'static str),
    /// There is nothing more.
    End,
}

impl Token {
    /// What it is called in messages.
    pub(crate) fn describe(&self) -> String {
        match self {
            Token::Name(name) => format!("`{name}`"),
            Token::Text(_) => "a string".to_owned(),
            Token::Bytes(_) => "bytes".to_owned(),
            Token::Int(value) => format!("`{value}`"),
            Token::Float(_) => "a number".to_owned(),
            Token::Sign(sign) => format!("`{sign}`"),
            Token::End => "the end".to_owned(),
        }
    }
}

/// Signs, longer ones first.
const SIGNS: &[&str] =
    &["==", "!=", ">=", "<=", "=>", ">", "<", "+", "-", "*", "/", "=", "(", ")", "{", "}", "[", "]", ":", ",", "."];

/// The words of a statement with the places where they begin and end, and [`Token::End`] at last.
pub(crate) fn tokens(source: &str) -> Result<Vec<(Token, usize, usize)>, Fault> {
    let bytes = source.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let start = at;
        let token = match byte {
            b' ' | b'\t' | b'\n' | b'\r' | b'\x0c' => {
                at += 1;
                continue;
            }
            b'"' => {
                at += 1;
                text(source, &mut at)?
            }
            b'0'..=b'9' => number(source, &mut at)?,
            b'.' if bytes.get(at + 1).is_some_and(u8::is_ascii_digit) => number(source, &mut at)?,
            b'a'..=b'z' | b'A'..=b'Z' => {
                at += run(&bytes[at..], |byte| byte.is_ascii_alphanumeric() || byte == b'_');
                Token::Name(source[start..at].to_owned())
            }
            _ => match SIGNS.iter().find(|sign| source[at..].starts_with(**sign)) {
                Some(sign) => {
                    at += sign.len();
                    Token::Sign(sign)
                }
                None => {
                    let what = source[at..].chars().next().unwrap_or_default();
                    return Err(Fault::new(at, format!("{what:?} means nothing here")));
                }
            },
        };
        out.push((token, start, at));
    }
    out.push((Token::End, at, at));
    Ok(out)
}

fn run(bytes: &[u8], is: impl Fn(u8) -> bool) -> usize {
    bytes.iter().take_while(|byte| is(**byte)).count()
}

fn number(source: &str, at: &mut usize) -> Result<Token, Fault> {
    let bytes = source.as_bytes();
    let start = *at;
    let digits = |from: usize| run(bytes.get(from..).unwrap_or_default(), |byte| byte.is_ascii_digit());
    if source[start..].starts_with("0x") {
        let len = run(&bytes[start + 2..], |byte| byte.is_ascii_hexdigit());
        if len > 0 {
            *at = start + 2 + len;
            if len % 2 == 1 {
                return Err(Fault::new(start, "bytes have two hexadecimal digits each, and there is an odd number"));
            }
            let pairs = bytes[start + 2..*at].chunks(2);
            let hex = |digit: u8| char::from(digit).to_digit(16).unwrap_or(0) as u8;
            return Ok(Token::Bytes(pairs.map(|pair| hex(pair[0]) * 16 + hex(pair[1])).collect()));
        }
    }
    *at = start + digits(start);
    if bytes.get(*at) == Some(&b'.') {
        *at += 1;
        *at += digits(*at);
        if let Some(b'e' | b'E') = bytes.get(*at) {
            let sign = usize::from(matches!(bytes.get(*at + 1), Some(b'+' | b'-')));
            let exponent = digits(*at + 1 + sign);
            if exponent > 0 {
                *at += 1 + sign + exponent;
            }
        }
        let value = source[start..*at].parse::<f64>().ok().filter(|value| value.is_finite());
        return value.map(Token::Float).ok_or_else(|| Fault::new(start, "the number is out of range"));
    }
    let value = source[start..*at].parse().map_err(|_| Fault::new(start, "the number does not fit into 64 bits"))?;
    Ok(Token::Int(value))
}

/// Reads a string behind its opening quote, as Go unquotes it.
fn text(source: &str, at: &mut usize) -> Result<Token, Fault> {
    let bytes = source.as_bytes();
    let opening = *at - 1;
    let mut out = Vec::new();
    loop {
        let start = *at;
        let Some(&byte) = bytes.get(start) else {
            return Err(Fault::new(opening, "the string has no closing quote"));
        };
        *at += 1;
        match byte {
            b'"' => return Ok(Token::Text(out)),
            b'\n' => return Err(Fault::new(start, "a string has no line breaks: write \\n")),
            b'\\' => {
                let Some(&escape) = bytes.get(*at) else {
                    return Err(Fault::new(opening, "the string has no closing quote"));
                };
                *at += 1;
                let wrong = || Fault::new(start, "this is no escape: a backslash by itself is written \\\\");
                let mut code = |len: usize, radix: u32| {
                    let digits = source.get(*at..*at + len).filter(|digits| digits.bytes().all(|d| d != b'+'));
                    let value = digits.and_then(|digits| u32::from_str_radix(digits, radix).ok()).ok_or_else(wrong)?;
                    *at += len;
                    Ok(value)
                };
                match escape {
                    b'a' => out.push(7),
                    b'b' => out.push(8),
                    b'f' => out.push(12),
                    b'n' => out.push(b'\n'),
                    b'r' => out.push(b'\r'),
                    b't' => out.push(b'\t'),
                    b'v' => out.push(11),
                    b'\\' | b'"' => out.push(escape),
                    b'x' => out.push(code(2, 16)? as u8),
                    b'0'..=b'7' => {
                        *at -= 1;
                        let code = |len: usize| {
                            let digits = source.get(*at..*at + len).filter(|d| d.bytes().all(|d| d.is_ascii_digit()));
                            digits.and_then(|digits| u32::from_str_radix(digits, 8).ok())
                        };
                        let value = code(3).and_then(|value| u8::try_from(value).ok()).ok_or_else(wrong)?;
                        *at += 3;
                        out.push(value);
                    }
                    b'u' | b'U' => {
                        let value = code(if escape == b'u' { 4 } else { 8 }, 16)?;
                        let character = char::from_u32(value).ok_or_else(wrong)?;
                        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                    }
                    _ => return Err(wrong()),
                }
            }
            byte => out.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str) -> Vec<Token> {
        tokens(source).unwrap().into_iter().map(|(token, _, _)| token).collect()
    }

    #[test]
    fn words_are_told_apart() {
        let name = |name: &str| Token::Name(name.to_owned());
        for (source, expected) in [
            (
                "set(a.b, 1)",
                vec![
                    name("set"),
                    Token::Sign("("),
                    name("a"),
                    Token::Sign("."),
                    name("b"),
                    Token::Sign(","),
                    Token::Int(1),
                    Token::Sign(")"),
                ],
            ),
            (
                "1.5 .5 2. 1.e3 1.5e-1x",
                vec![
                    Token::Float(1.5),
                    Token::Float(0.5),
                    Token::Float(2.0),
                    Token::Float(1000.0),
                    Token::Float(0.15),
                    name("x"),
                ],
            ),
            ("0x0AfF 0", vec![Token::Bytes(vec![10, 255]), Token::Int(0)]),
            (r#""a\"\\\n\x41\u00e9\101é""#, vec![Token::Text("a\"\\\nAéAé".into())]),
            (
                "a<=b=>c==d",
                vec![
                    name("a"),
                    Token::Sign("<="),
                    name("b"),
                    Token::Sign("=>"),
                    name("c"),
                    Token::Sign("=="),
                    name("d"),
                ],
            ),
        ] {
            let mut found = words(source);
            assert_eq!(found.pop(), Some(Token::End));
            assert_eq!(found, expected, "{source}");
        }
    }

    #[test]
    fn what_is_no_word_is_refused_at_its_place() {
        for (source, at) in [
            (r#"a "b"#, 2),
            (r#""\d""#, 1),
            (r#""\'""#, 1),
            (r#""\x4""#, 1),
            (r#""\400""#, 1),
            ("\"a\nb\"", 2),
            ("a # b", 2),
            ("a 0x123", 2),
            ("99999999999999999999", 0),
            ("é", 0),
            (r#""\"#, 0),
        ] {
            assert_eq!(tokens(source).unwrap_err().at, at, "{source}");
        }
    }
}
