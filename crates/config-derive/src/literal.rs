//! Literals of the user's language in a derive's attribute.

use proc_macro2::{Delimiter, Literal, TokenStream, TokenTree};
use syn::parse::ParseStream;
use syn::{Error, LitFloat, LitInt, LitStr, Token};

const NO_LITERAL: &str = "a default is a literal of the user's language; compute others with `default_with`";

/// Takes the tokens up to the next comma of this level, and gives the literal as the user would write it:
/// `["a", 1]`, `{x = -1}`, `"15s"`.
pub(crate) fn parse(input: ParseStream) -> syn::Result<String> {
    let mut tokens = TokenStream::new();
    while !input.is_empty() && !input.peek(Token![,]) {
        tokens.extend([input.parse::<TokenTree>()?]);
    }
    if tokens.is_empty() {
        return Err(input.error("expected a literal of the user's language"));
    }
    text(tokens, false)
}

fn text(tokens: TokenStream, in_object: bool) -> syn::Result<String> {
    let mut out = String::new();
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let last = tokens.peek().is_none();
        match token {
            TokenTree::Literal(token) => out.push_str(&literal(&token)?),
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Bracket => ('[', ']'),
                    Delimiter::Brace => ('{', '}'),
                    _ => return Err(Error::new(group.span(), NO_LITERAL)),
                };
                out.push(open);
                out.push_str(&text(group.stream(), open == '{')?);
                out.push(close);
            }
            TokenTree::Punct(mark) => match mark.as_char() {
                ',' if last => {}
                ',' => out.push_str(", "),
                '=' if in_object => out.push_str(" = "),
                '-' => out.push('-'),
                _ => return Err(Error::new(mark.span(), NO_LITERAL)),
            },
            TokenTree::Ident(name) => {
                let text = name.to_string();
                let key = in_object && matches!(tokens.peek(), Some(TokenTree::Punct(mark)) if mark.as_char() == '=');
                if !key && !["true", "false", "null"].contains(&text.as_str()) {
                    return Err(Error::new(name.span(), NO_LITERAL));
                }
                out.push_str(&text);
            }
        }
    }
    Ok(out)
}

/// A number or a string in the user's spelling: no separators within digits, and the escapes of the user's language.
fn literal(token: &Literal) -> syn::Result<String> {
    let tokens = TokenStream::from(TokenTree::Literal(token.clone()));
    if let Ok(text) = syn::parse2::<LitStr>(tokens.clone()) {
        return Ok(quote(&text.value()));
    }
    let (digits, suffix) = if let Ok(number) = syn::parse2::<LitInt>(tokens.clone()) {
        (number.base10_digits().to_owned(), number.suffix().to_owned())
    } else if let Ok(number) = syn::parse2::<LitFloat>(tokens) {
        (number.base10_digits().to_owned(), number.suffix().to_owned())
    } else {
        return Err(Error::new(token.span(), NO_LITERAL));
    };
    if suffix.is_empty() {
        Ok(digits)
    } else {
        Err(Error::new(token.span(), "a number of the user's language has no suffix"))
    }
}

/// A string between double quotes with the escapes that the user's language knows.
fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            character if character.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(character))),
            character => out.push(character),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use syn::parse::Parser;

    fn parsed(text: &str) -> Result<String, String> {
        super::parse.parse_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_default_is_printed_as_the_user_would_write_it() {
        let cases = [
            ("10000", "10000"),
            ("10_000", "10000"),
            ("0x10", "16"),
            ("-1", "-1"),
            ("1.5", "1.5"),
            ("1e3", "1e3"),
            ("true", "true"),
            ("null", "null"),
            ("\"15s\"", "\"15s\""),
            ("r\"\\d+\"", "\"\\\\d+\""),
            ("\"a\\\"b\\n\\u{1}\"", "\"a\\\"b\\n\\u0001\""),
            ("[]", "[]"),
            ("[\"a\", \"b\",]", "[\"a\", \"b\"]"),
            ("{}", "{}"),
            ("{a = 1, \"b.c\" = [-2]}", "{a = 1, \"b.c\" = [-2]}"),
        ];
        for (written, expected) in cases {
            assert_eq!(parsed(written).as_deref(), Ok(expected), "{written}");
        }
    }

    #[test]
    fn what_is_no_literal_is_refused_with_a_hint() {
        let hint = super::NO_LITERAL;
        let cases = [
            ("", "expected a literal of the user's language"),
            ("DEFAULT", hint),
            ("{a = b}", hint),
            ("Duration::ZERO", hint),
            ("f(1)", hint),
            ("1 + 2", hint),
            ("b\"x\"", hint),
            ("'x'", hint),
            ("1u8", "a number of the user's language has no suffix"),
        ];
        for (written, expected) in cases {
            let error = parsed(written).unwrap_err();
            assert!(error.contains(expected), "{written}: {error}");
        }
    }
}
