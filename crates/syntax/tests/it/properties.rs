//! Facts that hold for every text.

use corten_syntax::{
    Block, Expr, Parsed, Span, Stmt, TokenKind, decode, format, is_identifier, parse, parse_expression, quote,
    same_body,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// Makes valid texts from random bytes; texts get smaller as the bytes do.
struct Generator<'a> {
    choices: std::slice::Iter<'a, u8>,
    out: String,
    depth: usize,
}

const NAMES: [&str; 7] = ["a", "bb", "long_name", "x9", "_u", "é", "ccc"];
const LITERALS: [&str; 16] = [
    "1",
    "010",
    "1.",
    ".5",
    "1e3",
    "true",
    "null",
    "\"\"",
    "\"two words\"",
    "\"\\n\\\"\\u00e9\"",
    "\"tab\there\"",
    "`raw`",
    "`two\nlines`",
    "` spaces \n\tand tabs`",
    "\"世\"",
    "`\r\n`",
];
const KEYS: [&str; 9] = ["a", "bb", "long_name", "\"k\"", "\"q k\"", "`r`", "\"a\\\"b\"", "`x\"y`", "\"\""];
const OPERATORS: [&str; 14] = ["+", "-", "*", "/", "%", "^", "==", "!=", "<", "<=", ">", ">=", "&&", "||"];

impl<'a> Generator<'a> {
    fn text(choices: &'a [u8]) -> String {
        let mut generator = Self { choices: choices.iter(), out: String::new(), depth: 0 };
        while generator.choices.len() > 0 {
            generator.statement();
        }
        generator.out
    }

    /// A number below `count`; zero, the simplest choice, when the bytes are used up.
    fn choose(&mut self, count: u8) -> u8 {
        self.choices.next().map_or(0, |byte| byte % count)
    }

    fn pick(&mut self, from: &[&str]) {
        let index = usize::from(self.choose(from.len() as u8));
        self.out.push_str(from[index]);
    }

    /// White space within a line.
    fn gap(&mut self) {
        self.pick(&["", "", " ", "\t", "  ", " ", "", "/* c */", " /*c*/ ", "\r"]);
    }

    /// White space that may hold newlines.
    fn wide_gap(&mut self) {
        self.gap();
        self.pick(&[
            "",
            "",
            "",
            "\n",
            "\n\n\n",
            "\r\n",
            " // t \n",
            "//\n// own\n\n",
            "/* two\n lines */",
            "\n\n// a\n",
        ]);
    }

    fn statement(&mut self) {
        self.pick(&["", "", "", "// own\n", "\n", "/* pre */ ", "// a\n\n// b\n", "\n/* two\nlines */\n"]);
        self.gap();
        self.pick(&NAMES);
        if self.depth < 3 && self.choose(3) == 1 {
            self.pick(&["", "", ".bb", " . \n c"]);
            self.gap();
            self.pick(&["", "\"label\"", "\"\""]);
            self.gap();
            self.out.push('{');
            self.depth += 1;
            self.pick(&["", "\n", "// t\n", "\n\n"]);
            for _ in 0..self.choose(4) {
                self.statement();
            }
            self.depth -= 1;
            self.gap();
            self.out.push('}');
        } else {
            self.gap();
            self.out.push('=');
            self.wide_gap();
            self.expr();
        }
        self.gap();
        self.pick(&["\n", "\n", "\n\n\n", "// t\n", " // t  \n", "\r\n"]);
    }

    fn expr(&mut self) {
        self.depth += 1;
        let kind = if self.depth > 5 { 0 } else { self.choose(12) };
        match kind {
            0..3 => self.pick(&LITERALS),
            3 => self.pick(&NAMES),
            4 => self.list("[", "]"),
            5 => self.object(),
            6 => {
                self.pick(&NAMES);
                self.pick(&[".a", ".a.bb", ". \n c", ""]);
                self.list("(", ")");
            }
            7 => {
                self.pick(&["-", "!"]);
                self.wide_gap();
                self.expr();
            }
            8 => {
                self.out.push('(');
                self.wide_gap();
                self.expr();
                self.gap();
                self.out.push(')');
            }
            9 => {
                self.pick(&["a", "1 ", "\"s\"", "[1]"]);
                self.out.push('.');
                self.wide_gap();
                self.pick(&NAMES);
            }
            10 => {
                self.pick(&NAMES);
                self.out.push('[');
                self.wide_gap();
                self.expr();
                self.gap();
                self.out.push(']');
            }
            _ => {
                self.expr();
                self.out.push(' ');
                self.pick(&OPERATORS);
                self.out.push(' ');
                self.wide_gap();
                self.expr();
            }
        }
        self.depth -= 1;
    }

    fn list(&mut self, open: &str, close: &str) {
        self.out.push_str(open);
        self.wide_gap();
        for _ in 0..self.choose(4) {
            self.expr();
            self.comma();
        }
        self.out.push_str(close);
    }

    fn object(&mut self) {
        self.out.push('{');
        self.wide_gap();
        for _ in 0..self.choose(4) {
            self.pick(&KEYS);
            self.gap();
            self.out.push('=');
            self.wide_gap();
            self.expr();
            self.comma();
        }
        self.out.push('}');
    }

    fn comma(&mut self) {
        self.gap();
        self.out.push(',');
        self.wide_gap();
    }
}

fn valid() -> impl Strategy<Value = String> {
    vec(any::<u8>(), 0..300).prop_map(|choices| Generator::text(&choices))
}

const FRAGMENTS: [&str; 46] = [
    "a", "b", " ", "  ", "\t", "\n", "\n\n", "\r\n", "=", "==", "!", "!=", "<", "|", "||", "&", "+", "-", "*", "/",
    "^", "{", "}", "(", ")", "[", "]", ",", ".", "\"", "`", "'", "\\", "\"l\"", "//", "/*", "*/", "0x1e", "1.", "null",
    "#", "\0", "\u{feff}", "é", "\u{a0}", "a = ",
];

/// Texts that are mostly wrong, but made of what the language has.
fn fragments() -> impl Strategy<Value = String> {
    vec(select(&FRAGMENTS[..]), 0..60).prop_map(|fragments| fragments.concat())
}

/// Valid texts with some places replaced.
fn mutated() -> impl Strategy<Value = String> {
    let edits = vec((any::<prop::sample::Index>(), 0..6_usize, select(&FRAGMENTS[..])), 1..4);
    (valid(), edits).prop_map(|(text, edits)| {
        let mut characters: Vec<char> = text.chars().collect();
        for (index, removed, inserted) in edits {
            let start = index.index(characters.len() + 1);
            let end = (start + removed).min(characters.len());
            characters.splice(start..end, inserted.chars());
        }
        characters.into_iter().collect()
    })
}

fn texts() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), fragments(), mutated(), valid()]
}

fn spans(body: &[Stmt], out: &mut Vec<Span>) {
    for stmt in body {
        out.push(stmt.span());
        match stmt {
            Stmt::Attr(attr) => {
                out.push(attr.name.span);
                expr_spans(&attr.value, out);
            }
            Stmt::Block(block) => {
                let Block { name_span, label, open, close, body, .. } = &**block;
                out.extend([*name_span, *open, *close]);
                out.extend(label.as_ref().map(|label| label.span));
                spans(body, out);
            }
        }
    }
}

fn expr_spans(expr: &Expr, out: &mut Vec<Span>) {
    out.push(expr.span());
    match expr {
        Expr::Literal(_) | Expr::Identifier(_) => {}
        Expr::Access(access) => {
            expr_spans(&access.value, out);
            out.push(access.name.span);
        }
        Expr::Index(index) => {
            expr_spans(&index.value, out);
            expr_spans(&index.index, out);
        }
        Expr::Call(call) => {
            expr_spans(&call.function, out);
            call.args.iter().for_each(|arg| expr_spans(arg, out));
        }
        Expr::Unary(unary) => expr_spans(&unary.value, out),
        Expr::Binary(binary) => {
            expr_spans(&binary.left, out);
            expr_spans(&binary.right, out);
        }
        Expr::Paren(paren) => expr_spans(&paren.inner, out),
        Expr::Array(array) => array.elements.iter().for_each(|element| expr_spans(element, out)),
        Expr::Object(object) => {
            for field in &object.fields {
                out.push(field.name.span);
                expr_spans(&field.value, out);
            }
        }
    }
}

fn check_places(text: &str, parsed: &Parsed) -> Result<(), TestCaseError> {
    let mut all = Vec::new();
    spans(&parsed.file.body, &mut all);
    for span in all {
        let slice = text.get(span.start as usize..span.end as usize);
        prop_assert!(slice.is_some(), "{span:?} lies in a text of {} bytes", text.len());
    }
    for diagnostic in &parsed.diagnostics {
        for position in diagnostic.start.iter().chain(&diagnostic.end) {
            let line = parsed.file.source.line_text(position.line);
            // The end of a line is a place too: that is where a comma is missed.
            prop_assert!(line.is_some_and(|line| position.column as usize <= line.len() + 1), "{diagnostic}");
        }
    }
    Ok(())
}

fn comments(parsed: &Parsed) -> Vec<String> {
    let comments = parsed.tokens.iter().filter(|token| token.kind == TokenKind::Comment);
    comments.map(|token| parsed.file.source.slice(token.span).replace('\r', "")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_tokens_are_the_text(text in texts()) {
        let parsed = parse("f", &text);
        let mut end = 0;
        for token in &parsed.tokens {
            prop_assert_eq!(token.span.start, end);
            end = token.span.end;
        }
        let joined: String = parsed.tokens.iter().map(|token| parsed.file.source.slice(token.span)).collect();
        prop_assert_eq!(joined, text);
        prop_assert_eq!(parsed.tokens.last().map(|token| token.kind), Some(TokenKind::Eof));
    }

    #[test]
    fn every_place_lies_in_the_text(text in texts()) {
        let parsed = parse("f", &text);
        check_places(&text, &parsed)?;
        let rendered = parsed.diagnostics.render(true);
        prop_assert_eq!(rendered.is_empty(), parsed.diagnostics.is_empty());
    }

    #[test]
    fn an_expression_alone_is_read_as_the_value_of_an_attribute(text in texts()) {
        let alone = parse_expression("", &text);
        if !alone.diagnostics.has_errors() {
            let parsed = parse("", &format!("a = {}", text.trim_start_matches('\u{feff}')));
            prop_assert!(parsed.diagnostics.is_empty(), "{}", parsed.diagnostics);
            let [Stmt::Attr(attr)] = &parsed.file.body[..] else { panic!("there is one attribute") };
            prop_assert!(attr.value.same_text(&alone.expr));
        }
    }

    #[test]
    fn generated_texts_are_valid(text in valid()) {
        let parsed = parse("f", &text);
        prop_assert!(parsed.diagnostics.is_empty(), "{}\n{}", parsed.diagnostics, text);
    }

    #[test]
    fn formatting_keeps_what_is_said_and_comes_to_rest(text in prop_oneof![valid(), mutated(), fragments()]) {
        let parsed = parse("f", &text);
        let Ok(once) = format("f", &text) else {
            prop_assert!(parsed.diagnostics.has_errors(), "{}", text);
            return Ok(());
        };
        let again = parse("f", &once);
        prop_assert!(same_body(&parsed.file.body, &again.file.body));
        prop_assert_eq!(comments(&parsed), comments(&again));
        prop_assert!(once.ends_with('\n'));

        // As in the reference, columns may still move once, because lines that were joined belong to columns only then.
        let twice = format("f", &once).expect("formatted text is valid");
        let thrice = format("f", &twice).expect("formatted text is valid");
        prop_assert_eq!(twice, thrice);
    }

    #[test]
    fn bytes_are_text_or_have_a_place_that_is_none(bytes in vec(any::<u8>(), 0..40)) {
        match decode("f", &bytes) {
            Ok(text) => prop_assert_eq!(text.as_bytes(), &bytes),
            Err(diagnostics) => prop_assert!(!diagnostics.is_empty()),
        }
    }

    #[test]
    fn a_quoted_text_is_a_string_token(text in any::<String>()) {
        let quoted = quote(&text);
        let parsed = parse_expression("", &quoted);
        // Control characters have escapes that the language has too; nothing is left that would end the string.
        prop_assert!(parsed.diagnostics.is_empty(), "{}: {}", quoted, parsed.diagnostics);
        prop_assert!(matches!(&parsed.expr, Expr::Literal(literal) if *literal.text == *quoted));
    }

    #[test]
    fn an_identifier_is_what_is_parsed_as_one(text in "\\PC{0,4}") {
        let parsed = parse_expression("", &text);
        let alone = parsed.diagnostics.is_empty()
            && matches!(&parsed.expr, Expr::Identifier(ident) if *ident.text == *text);
        prop_assert_eq!(is_identifier(&text), alone);
    }
}
