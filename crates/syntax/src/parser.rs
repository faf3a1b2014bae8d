//! Tokens to a tree.
//!
//! The parser goes on after an error, at the same places as the reference, because people know its messages. A second
//! error of the parser on one line is not reported, errors of the lexer always are.

use std::sync::Arc;

use crate::ast::{
    Access, Array, Attr, Binary, BinaryOp, Block, Body, Call, Expr, Field, File, Ident, Index, Label, Literal,
    LiteralKind, Object, Paren, Stmt, Unary, UnaryOp,
};
use crate::diag::{DIAGNOSTICS_MAX, Diagnostic, Diagnostics};
use crate::lexer::{LexError, Token, TokenKind, lex};
use crate::quote::{is_identifier, quote};
use crate::source::{SOURCE_BYTES_MAX, SourceFile, Span};

/// How many levels deep a tree may be, blocks and expressions together. What stands in a row is one level, however long:
/// `a + b + c`, `a.b.c`. Signs before a value and powers, which are read from the right, are a level each.
///
/// Levels are walked by recursion, here and in the evaluator, and must not overflow the stack of a worker thread.
pub const DEPTH_MAX: usize = 256;

/// How many operators of one strength, or accesses, indexes and calls, may stand in a row. Rows are walked by loops; the
/// limit bounds the time and the memory for what no person writes.
pub const CHAIN_MAX: usize = 65_536;

/// A parsed file: the tree, the tokens and what is wrong.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The tree. Where there are errors it holds what could be understood.
    pub file: File,
    /// All tokens, white space and comments included. Their texts joined are the source.
    pub tokens: Vec<Token>,
    /// What is wrong, in the order in which it was found.
    pub diagnostics: Diagnostics,
}

impl Parsed {
    /// The file when nothing is wrong.
    ///
    /// # Errors
    /// All diagnostics.
    pub fn into_result(self) -> Result<File, Diagnostics> {
        self.diagnostics.into_result(self.file)
    }
}

/// A parsed expression that stands alone.
#[derive(Clone, Debug)]
pub struct ParsedExpression {
    /// The text that was parsed.
    pub source: Arc<SourceFile>,
    /// The tree. Where there are errors it holds what could be understood.
    pub expr: Expr,
    /// What is wrong, in the order in which it was found.
    pub diagnostics: Diagnostics,
}

impl ParsedExpression {
    /// The expression when nothing is wrong.
    ///
    /// # Errors
    /// All diagnostics.
    pub fn into_result(self) -> Result<Expr, Diagnostics> {
        self.diagnostics.into_result(self.expr)
    }
}

/// Parses a file. Never fails: what is wrong is in the diagnostics.
pub fn parse(file_name: &str, text: &str) -> Parsed {
    parse_source(SourceFile::new(file_name, text))
}

/// Parses a source that exists already.
pub fn parse_source(source: Arc<SourceFile>) -> Parsed {
    let mut parser = match Parser::new(&source) {
        Ok(parser) => parser,
        Err(diagnostic) => {
            let file = File { source, body: Body::new() };
            return Parsed { file, tokens: Vec::new(), diagnostics: diagnostic.into() };
        }
    };
    let body = parser.body(TokenKind::Eof);
    let Parser { tokens, diagnostics, .. } = parser;
    Parsed { file: File { source, body }, tokens, diagnostics: diagnostics.into() }
}

/// Parses an expression that stands alone. Never fails: what is wrong is in the diagnostics.
pub fn parse_expression(name: &str, text: &str) -> ParsedExpression {
    let source = SourceFile::new(name, text);
    let mut parser = match Parser::new(&source) {
        Ok(parser) => parser,
        Err(diagnostic) => {
            return ParsedExpression { source, expr: null(Span::default()), diagnostics: diagnostic.into() };
        }
    };
    let expr = parser.expression().expr;
    parser.expect(TokenKind::Terminator);
    // The reference ignores what follows on further lines; half of what was meant is never the right answer.
    if parser.diagnostics.is_empty() {
        parser.expect(TokenKind::Eof);
    }
    let diagnostics = parser.diagnostics.into();
    ParsedExpression { source, expr, diagnostics }
}

/// What the statements of a configuration may not be: an attribute at the top. One diagnostic for each.
pub fn check_top_level(file: &File) -> Diagnostics {
    let attrs = file.body.iter().filter_map(|stmt| match stmt {
        Stmt::Attr(attr) => Some(attr),
        Stmt::Block(_) => None,
    });
    let diagnose = |attr: &Arc<Attr>| {
        Diagnostic::error(&file.source, attr.name.span, format!("unrecognized attribute {}", attr.name.text))
    };
    attrs.map(diagnose).collect()
}

/// An expression and how many levels it has.
struct Node {
    expr: Expr,
    levels: usize,
}

/// What a statement starts with, before it is known to be an attribute or a block.
struct Head {
    parts: Vec<Ident>,
    label: Option<Label>,
    /// The string after the name, even when it is not usable as a label.
    label_span: Option<Span>,
}

struct Parser<'a> {
    source: &'a Arc<SourceFile>,
    tokens: Vec<Token>,
    lex_errors: std::iter::Peekable<std::vec::IntoIter<LexError>>,
    diagnostics: Vec<Diagnostic>,
    /// Index of the current token, which is never trivia.
    at: usize,
    kind: TokenKind,
    span: Span,
    /// The line of the last error of the parser, 0 when there was none.
    error_line: u32,
    /// Levels around the current token.
    depth: usize,
    /// Set when the text nests too deeply: the rest is not looked at.
    stopped: bool,
}

impl<'a> Parser<'a> {
    fn new(source: &'a Arc<SourceFile>) -> Result<Self, Diagnostic> {
        if source.text().len() > SOURCE_BYTES_MAX {
            let message = format!("source is larger than {SOURCE_BYTES_MAX} bytes");
            return Err(Diagnostic::error_without_place(source.name(), message));
        }
        let (tokens, lex_errors) = lex(source);
        let mut parser = Self {
            source,
            tokens,
            lex_errors: lex_errors.into_iter().peekable(),
            diagnostics: Vec::new(),
            at: 0,
            kind: TokenKind::Eof,
            span: Span::default(),
            error_line: 0,
            depth: 0,
            stopped: false,
        };
        parser.settle();
        Ok(parser)
    }

    /// Makes the first token from `at` on that is not trivia the current one.
    fn settle(&mut self) {
        // The last token is the end, which is not trivia.
        while self.tokens[self.at].kind.is_trivia() {
            self.at += 1;
        }
        let Token { kind, span } = self.tokens[self.at];
        self.kind = kind;
        self.span = span;
        while let Some(error) = self.lex_errors.next_if(|error| error.after_tokens <= self.at) {
            self.report(Diagnostic::error_at(self.source, error.offset, error.message));
        }
    }

    fn next(&mut self) {
        if self.kind != TokenKind::Eof {
            self.at += 1;
            self.settle();
        }
    }

    fn text(&self) -> &'a str {
        self.source.slice(self.span)
    }

    fn report(&mut self, diagnostic: Diagnostic) {
        if self.diagnostics.len() < DIAGNOSTICS_MAX {
            self.diagnostics.push(diagnostic);
        }
    }

    fn error(&mut self, message: impl Into<String>) {
        let line = self.source.line(self.span.start);
        if line == self.error_line || self.stopped {
            return;
        }
        self.error_line = line;
        self.report(Diagnostic::error_at(self.source, self.span.start, message));
    }

    /// An error that is reported even when its line has one.
    fn error_over(&mut self, span: Span, message: &str) {
        if !self.stopped {
            self.report(Diagnostic::error(self.source, span, message));
        }
    }

    fn error_got(&mut self, expected: &str) {
        self.error(format!("expected {expected}, got {}", self.kind.name()));
    }

    /// Passes the current token, which should be of one kind. Returns its span and whether it was.
    fn expect(&mut self, kind: TokenKind) -> (Span, bool) {
        let (span, found) = (self.span, self.kind == kind);
        if !found {
            self.error_got(kind.name());
        }
        self.next();
        (span, found)
    }

    fn skip_to(&mut self, kinds: &[TokenKind]) {
        while self.kind != TokenKind::Eof && !kinds.contains(&self.kind) {
            self.next();
        }
    }

    /// Passes the rest of a statement. A newline within brackets that were opened meanwhile is not its end.
    fn skip_statement(&mut self) {
        let (mut braces, mut brackets, mut parens) = (0, 0, 0);
        while self.kind != TokenKind::Eof {
            match self.kind {
                TokenKind::OpenBrace => braces += 1,
                TokenKind::CloseBrace => braces -= 1,
                TokenKind::OpenBracket => brackets += 1,
                TokenKind::CloseBracket => brackets -= 1,
                TokenKind::OpenParen => parens += 1,
                TokenKind::CloseParen => parens -= 1,
                TokenKind::Terminator if braces <= 0 && brackets <= 0 && parens <= 0 => return,
                _ => {}
            }
            self.next();
        }
    }

    /// Reports that the text nests too deeply and gives up: recovering from it would only go as deep again.
    fn stop(&mut self) {
        self.stop_with(format!("nesting is deeper than {DEPTH_MAX} levels"));
    }

    fn stop_with(&mut self, message: String) {
        if !self.stopped {
            self.report(Diagnostic::error_at(self.source, self.span.start, message));
            self.stopped = true;
            self.at = self.tokens.len() - 1;
            self.settle();
        }
    }

    /// Runs a part of the parser one level deeper, or not at all when that is too deep.
    fn deeper<T>(&mut self, part: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.depth >= DEPTH_MAX {
            self.stop();
            return None;
        }
        self.depth += 1;
        let result = part(self);
        self.depth -= 1;
        Some(result)
    }

    /// An expression over others that have `levels`.
    fn node(&mut self, expr: Expr, levels: usize) -> Node {
        if self.depth + levels >= DEPTH_MAX {
            self.stop();
        }
        Node { expr, levels: levels + 1 }
    }

    /// An expression that goes on a row with other expressions, which have `levels`, at its side.
    fn link(&mut self, expr: Expr, row: usize, levels: usize, length: &mut usize) -> Node {
        *length += 1;
        if *length > CHAIN_MAX {
            self.stop_with(format!("expression has more than {CHAIN_MAX} operators in a row"));
        }
        let levels = row.max(levels + 1);
        if self.depth + levels > DEPTH_MAX {
            self.stop();
        }
        Node { expr, levels }
    }

    fn body(&mut self, until: TokenKind) -> Body {
        let mut body = Body::new();
        while self.kind != until && self.kind != TokenKind::Eof {
            body.extend(self.statement());
            if self.kind == until {
                break;
            }
            if self.kind != TokenKind::Terminator {
                self.error_got(TokenKind::Terminator.name());
                self.skip_statement();
            }
            self.next();
        }
        body
    }

    fn statement(&mut self) -> Option<Stmt> {
        let Some(head) = self.head() else {
            self.skip_to(&[TokenKind::Ident]);
            return None;
        };
        match self.kind {
            TokenKind::Assign => {
                self.next();
                if head.parts.len() != 1 {
                    let message = "attribute names may only consist of a single identifier with no \".\"";
                    self.error_over(head.span(), message);
                } else if let Some(label) = head.label_span {
                    self.error_over(label, "attribute names may not have labels");
                }
                let value = self.expression().expr;
                let name = head.parts.into_iter().next()?;
                Some(Stmt::Attr(Arc::new(Attr { source: Arc::clone(self.source), name, value })))
            }
            TokenKind::OpenBrace => {
                let (open, _) = self.expect(TokenKind::OpenBrace);
                let body = self.deeper(|parser| parser.body(TokenKind::CloseBrace)).unwrap_or_default();
                let (close, _) = self.expect(TokenKind::CloseBrace);
                let name_span = head.span();
                let parts: Vec<&str> = head.parts.iter().map(|part| &*part.text).collect();
                Some(Stmt::Block(Arc::new(Block {
                    source: Arc::clone(self.source),
                    name: parts.join(".").into(),
                    name_span,
                    label: head.label,
                    body,
                    span: name_span.to(close),
                    open,
                    close,
                })))
            }
            _ => {
                if head.parts.len() == 1 && head.label.is_none() {
                    self.error_got("attribute assignment or block body");
                } else {
                    self.error_got("block body");
                }
                self.skip_to(&[TokenKind::Ident]);
                None
            }
        }
    }

    fn head(&mut self) -> Option<Head> {
        if self.kind != TokenKind::Ident {
            self.error_got("identifier");
            return None;
        }
        let mut parts = vec![self.take_ident()];
        while self.kind == TokenKind::Dot {
            self.next();
            if self.kind != TokenKind::Ident {
                self.error_got("identifier");
            }
            parts.push(self.take_ident());
        }

        let mut head = Head { parts, label: None, label_span: None };
        if !matches!(self.kind, TokenKind::Assign | TokenKind::OpenBrace) {
            if self.kind == TokenKind::String {
                self.label(&mut head);
            } else {
                self.error_got("block label");
            }
            self.next();
        }
        Some(head)
    }

    fn label(&mut self, head: &mut Head) {
        let text = self.text();
        head.label_span = Some(self.span);
        if !text.starts_with('"') {
            self.error(format!("expected block label to be a double quoted string, but got {}", quote(text)));
        }
        if let Some(label) = unquoted(text) {
            if !is_identifier(label) {
                let message = format!("expected block label to be a valid identifier, but got {}", quote(label));
                self.error(message);
            }
            head.label = Some(Label { text: label.into(), span: self.span });
        }
    }

    /// The current token as a name, whatever it is.
    fn take_ident(&mut self) -> Ident {
        let ident = Ident { text: self.text().into(), span: self.span };
        self.next();
        ident
    }

    fn expression(&mut self) -> Node {
        self.deeper(|parser| parser.binary(1)).unwrap_or_else(|| self.nothing())
    }

    /// Operators that bind at least as strongly as `precedence`, all but the power.
    fn binary(&mut self, precedence: u8) -> Node {
        let mut left = self.power();
        let mut length = 0;
        while let Some((op, binds)) = binary_op(self.kind)
            && binds >= precedence
        {
            let op_span = self.span;
            self.next();
            // At most six levels of the stack, one for each strength.
            let right = self.binary(binds + 1);
            let expr = Expr::Binary(Arc::new(Binary { op, op_span, left: left.expr, right: right.expr }));
            left = self.link(expr, left.levels, right.levels, &mut length);
        }
        left
    }

    fn power(&mut self) -> Node {
        let left = self.unary();
        if self.kind != TokenKind::Pow {
            return left;
        }
        let op_span = self.span;
        self.next();
        let right = self.deeper(Self::power).unwrap_or_else(|| self.nothing());
        let levels = left.levels.max(right.levels);
        self.node(
            Expr::Binary(Arc::new(Binary { op: BinaryOp::Pow, op_span, left: left.expr, right: right.expr })),
            levels,
        )
    }

    fn unary(&mut self) -> Node {
        let op = match self.kind {
            TokenKind::Not => UnaryOp::Not,
            TokenKind::Sub => UnaryOp::Neg,
            _ => return self.operand(),
        };
        let op_span = self.span;
        self.next();
        let value = self.deeper(Self::unary).unwrap_or_else(|| self.nothing());
        self.node(Expr::Unary(Arc::new(Unary { op, op_span, value: value.expr })), value.levels)
    }

    /// A primary expression and what is done with it: access, index, call.
    fn operand(&mut self) -> Node {
        let mut value = self.primary();
        let mut length = 0;
        loop {
            match self.kind {
                TokenKind::Dot => {
                    self.next();
                    if self.kind != TokenKind::Ident {
                        self.error_got(TokenKind::Ident.name());
                    }
                    let name = self.take_ident();
                    let expr = Expr::Access(Arc::new(Access { value: value.expr, name }));
                    value = self.link(expr, value.levels, 0, &mut length);
                }
                TokenKind::OpenBracket => {
                    let (open, _) = self.expect(TokenKind::OpenBracket);
                    let index = self.expression();
                    let (close, _) = self.expect(TokenKind::CloseBracket);
                    let expr = Index { value: value.expr, index: index.expr, open, close };
                    value = self.link(Expr::Index(Arc::new(expr)), value.levels, index.levels, &mut length);
                }
                TokenKind::OpenParen => {
                    let (open, args, close, levels) = self.list(TokenKind::OpenParen, TokenKind::CloseParen);
                    let expr = Call { function: value.expr, args, open, close };
                    value = self.link(Expr::Call(Arc::new(expr)), value.levels, levels, &mut length);
                }
                // Somebody may have written a block where a value is wanted: read it, to say so.
                TokenKind::String | TokenKind::OpenBrace => {
                    if self.kind == TokenKind::String {
                        self.next();
                    }
                    if !self.expect(TokenKind::OpenBrace).1 {
                        self.skip_statement();
                        return value;
                    }
                    self.deeper(|parser| parser.body(TokenKind::CloseBrace));
                    let (close, closed) = self.expect(TokenKind::CloseBrace);
                    if !closed {
                        self.skip_statement();
                        return value;
                    }
                    let span = Span::new(value.expr.start(), close.end);
                    self.error_over(span, "cannot use a block as an expression");
                }
                _ => return value,
            }
        }
    }

    fn primary(&mut self) -> Node {
        let literal = match self.kind {
            TokenKind::String => LiteralKind::String,
            TokenKind::Number => LiteralKind::Number,
            TokenKind::Float => LiteralKind::Float,
            TokenKind::Bool => LiteralKind::Bool,
            TokenKind::Null => LiteralKind::Null,
            TokenKind::Ident => {
                let ident = self.take_ident();
                return self.node(Expr::Identifier(ident), 0);
            }
            TokenKind::OpenParen => {
                let (open, _) = self.expect(TokenKind::OpenParen);
                let Node { expr: inner, levels } = self.expression();
                let (close, _) = self.expect(TokenKind::CloseParen);
                return self.node(Expr::Paren(Arc::new(Paren { inner, open, close })), levels);
            }
            TokenKind::OpenBracket => {
                let (open, elements, close, levels) = self.list(TokenKind::OpenBracket, TokenKind::CloseBracket);
                return self.node(Expr::Array(Arc::new(Array { elements, open, close })), levels);
            }
            TokenKind::OpenBrace => return self.object(),
            _ => {
                self.error_got("expression");
                let missing = self.nothing();
                self.skip_to(&[
                    TokenKind::Terminator,
                    TokenKind::CloseParen,
                    TokenKind::CloseBrace,
                    TokenKind::CloseBracket,
                    TokenKind::Comma,
                ]);
                return missing;
            }
        };
        let expr = Expr::Literal(Arc::new(Literal { kind: literal, text: self.text().into(), span: self.span }));
        self.next();
        self.node(expr, 0)
    }

    /// What stands where an expression is missing.
    fn nothing(&self) -> Node {
        Node { expr: null(Span::new(self.span.start, self.span.start)), levels: 1 }
    }

    /// Expressions between brackets, and the levels of the deepest.
    fn list(&mut self, open: TokenKind, until: TokenKind) -> (Span, Vec<Expr>, Span, usize) {
        let (open, _) = self.expect(open);
        let mut exprs = Vec::new();
        let mut levels = 0;
        while self.kind != until && self.kind != TokenKind::Eof {
            let node = self.expression();
            levels = levels.max(node.levels);
            exprs.push(node.expr);
            if self.kind == until {
                break;
            }
            if self.kind != TokenKind::Comma {
                self.error("missing ',' in expression list");
            }
            self.next();
        }
        let (close, _) = self.expect(until);
        (open, exprs, close, levels)
    }

    fn object(&mut self) -> Node {
        let (open, _) = self.expect(TokenKind::OpenBrace);
        let mut fields = Vec::new();
        let mut levels = 0;
        // A bracket of the wrong kind right after the brace is a typing mistake, not a field.
        let empty = self.kind == TokenKind::CloseBracket;
        while !empty && self.kind != TokenKind::CloseBrace && self.kind != TokenKind::Eof {
            let (name, quoted) = self.field_name();
            self.expect(TokenKind::Assign);
            let value = self.expression();
            levels = levels.max(value.levels);
            fields.push(Field { name, quoted, value: value.expr });
            if self.kind == TokenKind::CloseBrace {
                break;
            }
            if self.kind != TokenKind::Comma {
                self.error("missing ',' in field list");
            }
            self.next();
        }
        let (close, _) = self.expect(TokenKind::CloseBrace);
        self.node(Expr::Object(Arc::new(Object { fields, open, close })), levels)
    }

    fn field_name(&mut self) -> (Ident, bool) {
        match self.kind {
            TokenKind::Ident => (self.take_ident(), false),
            TokenKind::String => {
                let name = Ident { text: unquoted(self.text()).unwrap_or_default().into(), span: self.span };
                self.next();
                (name, true)
            }
            _ => {
                self.error_got("field name (string or identifier)");
                let start = self.span.start;
                self.skip_to(&[TokenKind::Assign]);
                (Ident { text: "".into(), span: Span::new(start, start) }, false)
            }
        }
    }
}

impl Head {
    fn span(&self) -> Span {
        match (self.parts.first(), self.parts.last()) {
            (Some(first), Some(last)) => first.span.to(last.span),
            _ => Span::default(),
        }
    }
}

fn null(span: Span) -> Expr {
    Expr::Literal(Arc::new(Literal { kind: LiteralKind::Null, text: "null".into(), span }))
}

/// The text of a string token without its first and last character; `None` when nothing is left. A string that is not
/// terminated loses its last character to this, but then its text is of no use anyway.
fn unquoted(text: &str) -> Option<&str> {
    let inner = text.get(1..)?;
    let last = inner.chars().next_back()?;
    Some(&inner[..inner.len() - last.len_utf8()]).filter(|inner| !inner.is_empty())
}

fn binary_op(kind: TokenKind) -> Option<(BinaryOp, u8)> {
    Some(match kind {
        TokenKind::Or => (BinaryOp::Or, 1),
        TokenKind::And => (BinaryOp::And, 2),
        TokenKind::Eq => (BinaryOp::Eq, 3),
        TokenKind::Ne => (BinaryOp::Ne, 3),
        TokenKind::Lt => (BinaryOp::Lt, 3),
        TokenKind::Le => (BinaryOp::Le, 3),
        TokenKind::Gt => (BinaryOp::Gt, 3),
        TokenKind::Ge => (BinaryOp::Ge, 3),
        TokenKind::Add => (BinaryOp::Add, 4),
        TokenKind::Sub => (BinaryOp::Sub, 4),
        TokenKind::Mul => (BinaryOp::Mul, 5),
        TokenKind::Div => (BinaryOp::Div, 5),
        TokenKind::Mod => (BinaryOp::Mod, 5),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An expression with parentheses around all that is combined.
    fn shape(expr: &Expr) -> String {
        let all = |exprs: &[Expr]| exprs.iter().map(shape).collect::<Vec<_>>().join(" ");
        match expr {
            Expr::Literal(literal) => literal.text.to_string(),
            Expr::Identifier(ident) => ident.text.to_string(),
            Expr::Access(access) => format!("({}.{})", shape(&access.value), access.name.text),
            Expr::Index(index) => format!("({}[{}])", shape(&index.value), shape(&index.index)),
            Expr::Call(call) => format!("({} call {})", shape(&call.function), all(&call.args)),
            Expr::Unary(unary) => format!("({} {})", unary.op, shape(&unary.value)),
            Expr::Binary(binary) => format!("({} {} {})", shape(&binary.left), binary.op, shape(&binary.right)),
            Expr::Paren(paren) => format!("<{}>", shape(&paren.inner)),
            Expr::Array(array) => format!("[{}]", all(&array.elements)),
            Expr::Object(object) => {
                let fields = object.fields.iter().map(|field| {
                    let quotes = if field.quoted { "'" } else { "" };
                    format!("{quotes}{}{quotes}={}", field.name.text, shape(&field.value))
                });
                format!("{{{}}}", fields.collect::<Vec<_>>().join(" "))
            }
        }
    }

    fn expression(text: &str) -> String {
        match parse_expression("", text).into_result() {
            Ok(expr) => shape(&expr),
            Err(diagnostics) => diagnostics.all_messages(),
        }
    }

    #[test]
    fn operators_bind_as_strongly_as_the_language_says() {
        let cases = [
            ("1 || 2 && 3 == 4 + 5 * 6 ^ 7", "(1 || (2 && (3 == (4 + (5 * (6 ^ 7))))))"),
            ("1 ^ 2 * 3 + 4 < 5 && 6 || 7", "((((((1 ^ 2) * 3) + 4) < 5) && 6) || 7)"),
            ("1 - 2 - 3", "((1 - 2) - 3)"),
            ("1 / 2 % 3 * 4", "(((1 / 2) % 3) * 4)"),
            ("1 == 2 == false", "((1 == 2) == false)"),
            ("2 ^ 3 ^ 4", "(2 ^ (3 ^ 4))"),
            ("-2 ^ 2", "((- 2) ^ 2)"),
            ("2 ^ -2", "(2 ^ (- 2))"),
            ("!!a.b[0]", "(! (! ((a.b)[0])))"),
            ("-a.b(1, 2,)[\"c\"].d", "(- ((((a.b) call 1 2)[\"c\"]).d))"),
            ("(1 + 2) * 3", "(<(1 + 2)> * 3)"),
            ("[1, [2], {}]", "[1 [2] {}]"),
            ("{a = 1, \"b c\" = 2, `d\\\"` = 3, \"e\\\"\" = 4, \"\" = 5,}", "{a=1 'b c'=2 'd\\\"'=3 'e\\\"'=4 ''=5}"),
            ("1 +\n2", "(1 + 2)"),
            ("[\n1,\n2]", "[1 2]"),
            ("1 .x", "(1.x)"),
        ];
        for (text, expected) in cases {
            assert_eq!(expression(text), expected, "{text}");
        }
    }

    #[test]
    fn an_expression_alone_ends_with_the_text() {
        let cases = [
            ("", "1:1: expected expression, got EOF"),
            ("1 2", "1:3: expected TERMINATOR, got NUMBER"),
            ("1 }", "1:3: expected TERMINATOR, got }"),
            ("1\n2", "2:1: expected EOF, got NUMBER"),
            ("(\n1\n)", "2:2: expected ), got TERMINATOR; 3:1: expected TERMINATOR, got )"),
            ("\n1 // c\n\n", "1"),
        ];
        for (text, expected) in cases {
            assert_eq!(expression(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_block_has_a_name_a_label_and_a_body() {
        let file = parse("f", "a . b.c \"l\" { d = 1 }\ne \"\" { }\n").into_result().expect("the text is valid");
        let [Stmt::Block(first), Stmt::Block(second)] = &file.body[..] else { panic!("there are two blocks") };
        assert_eq!((&*first.name, first.label(), first.body.len()), ("a.b.c", Some("l"), 1));
        assert_eq!(first.name_parts().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(first.id(), "a.b.c.l");
        assert_eq!(file.source.slice(first.name_span), "a . b.c");
        assert_eq!(file.source.slice(first.span), "a . b.c \"l\" { d = 1 }");
        assert_eq!((second.id().as_str(), second.label()), ("e", None));
    }

    #[test]
    fn sameness_looks_at_what_is_said_only() {
        let body = |text: &str| parse("", text).into_result().expect("the text is valid").body;
        let one = body("a \"l\" {\n\tb = [1, {\"c\" = x.y(2)[3]}]\n}\n");
        assert!(crate::same_body(&one, &body("// c\na \"l\" { b = [1,{`c`=x . y(2)[\n3],},] }")));
        for other in
            ["a { b = [1, {\"c\" = x.y(2)[3]}] }", "a \"l\" { b = [1, {\"c\" = x.y(2)[3.]}] }", "a \"l\" { }", ""]
        {
            assert!(!crate::same_body(&one, &body(other)), "{other}");
        }
    }

    #[test]
    fn attributes_at_the_top_are_not_recognised() {
        let file = parse("f", "a = 1\nb { c = 2 }\nlong = 3").into_result().expect("the text is valid");
        let diagnostics = check_top_level(&file);
        assert_eq!(diagnostics.all_messages(), "f:1:1: unrecognized attribute a; f:3:1: unrecognized attribute long");
        assert_eq!(diagnostics[1].end.map(|end| end.column), Some(4));
    }

    #[test]
    fn names_that_cannot_be_those_of_attributes_are_marked_whole() {
        let cases = [
            ("a.b = 1", "1:1-1:3 attribute names may only consist of a single identifier with no \".\""),
            ("a \"l\" = 1", "1:3-1:5 attribute names may not have labels"),
            ("a \"b-c\" { }", "1:3- expected block label to be a valid identifier, but got \"b-c\""),
            ("a `b` { }", "1:3- expected block label to be a double quoted string, but got \"`b`\""),
            ("a = b { }", "1:5-1:9 cannot use a block as an expression"),
        ];
        for (text, expected) in cases {
            let diagnostics = parse("", text).diagnostics;
            let place = |position: Option<crate::Position>| position.map(|one| one.to_string()).unwrap_or_default();
            let shown =
                diagnostics.iter().map(|one| format!("{}-{} {}", place(one.start), place(one.end), one.message));
            assert_eq!(shown.collect::<Vec<_>>(), [expected], "{text}");
        }
    }

    #[test]
    fn a_text_of_nothing_but_errors_has_a_limited_number_of_diagnostics() {
        assert_eq!(parse("", &"@\n".repeat(3 * DIAGNOSTICS_MAX)).diagnostics.len(), DIAGNOSTICS_MAX);
    }

    #[test]
    fn a_source_that_is_too_large_is_refused_unread() {
        let text = " ".repeat(SOURCE_BYTES_MAX + 1);
        assert_eq!(
            parse("f", &text).diagnostics.to_string(),
            format!("f: source is larger than {SOURCE_BYTES_MAX} bytes")
        );
    }
}
