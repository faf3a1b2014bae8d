//! The formatter: a tree and its comments to text in the one canonical layout.
//!
//! Lines are kept where the source has them within arrays, objects and calls; all other layout is ours. The result is
//! that of the reference, byte for byte, where that one keeps what the text says.

mod layout;

use std::borrow::Cow;

use crate::ast::{Block, Call, Expr, Field, LiteralKind, Object, Stmt, same_body};
use crate::diag::{Diagnostic, Diagnostics};
use crate::lexer::{Token, TokenKind, lex};
use crate::parser::{Parsed, parse};
use crate::quote::quote;
use crate::source::{SourceFile, Span};
use layout::Layout;

/// Blank lines that stay between two texts, plus the end of the line.
const NEWLINES_MAX: u32 = 2;

/// Formats a file.
///
/// # Errors
/// The diagnostics of the parser when the text is not valid. A result that does not say what the text says is never
/// returned: should the formatter have such a defect, the diagnostic asks for a report.
pub fn format(file_name: &str, text: &str) -> Result<String, Diagnostics> {
    let parsed = parse(file_name, text);
    if parsed.diagnostics.has_errors() {
        return Err(parsed.diagnostics);
    }
    let mut out = format_parsed(&parsed);
    out.push('\n');
    if !says_the_same(&parsed, &parse(file_name, &out)) {
        let message = "formatting would change what this file says; it is left as it is. please report this defect";
        return Err(Diagnostic::error_without_place(file_name, message).into());
    }
    Ok(out)
}

/// The text of an expression as the formatter writes it, without comments: what messages about a value quote.
pub fn expression_text(source: &SourceFile, expr: &Expr) -> String {
    let mut printer = Printer::new(source, Vec::new());
    printer.expr(expr);
    printer.layout.finish()
}

fn format_parsed(parsed: &Parsed) -> String {
    let source = &parsed.file.source;
    let mut printer = Printer::new(source, comment_groups(source, &parsed.tokens));
    printer.stmts(&parsed.file.body);
    printer.finish()
}

fn says_the_same(a: &Parsed, b: &Parsed) -> bool {
    fn comments(parsed: &Parsed) -> impl Iterator<Item = Cow<'_, str>> {
        let comments = parsed.tokens.iter().filter(|token| token.kind == TokenKind::Comment);
        comments.map(|token| comment_text(parsed.file.source.slice(token.span)))
    }
    !b.diagnostics.has_errors() && same_body(&a.file.body, &b.file.body) && comments(a).eq(comments(b))
}

/// Comments with nothing but white space and at most one newline between them.
type CommentGroup = Vec<Span>;

fn comment_groups(source: &SourceFile, tokens: &[Token]) -> Vec<CommentGroup> {
    let mut groups: Vec<CommentGroup> = Vec::new();
    // The line that the comment before ended on, when no other token stands in between.
    let mut end_line = None;
    for token in tokens {
        match token.kind {
            TokenKind::Whitespace | TokenKind::ByteOrderMark => {}
            TokenKind::Comment => {
                let start_line = source.line(token.span.start);
                match groups.last_mut() {
                    Some(group) if end_line.is_some_and(|line| start_line <= line + 1) => group.push(token.span),
                    _ => groups.push(vec![token.span]),
                }
                end_line = Some(last_line(source, token.span));
            }
            _ => end_line = None,
        }
    }
    groups
}

/// The text of a comment without its carriage returns, but for one that keeps a star and a slash apart.
fn comment_text(comment: &str) -> Cow<'_, str> {
    if !comment.contains('\r') {
        return Cow::Borrowed(comment);
    }
    let block = comment.starts_with("/*");
    let mut out = String::with_capacity(comment.len());
    let mut characters = comment.chars().peekable();
    while let Some(character) = characters.next() {
        let keep = block && out.len() > 2 && out.ends_with('*') && characters.peek() == Some(&'/');
        if character != '\r' || keep {
            out.push(character);
        }
    }
    Cow::Owned(out)
}

/// The line of the last character of a span.
fn last_line(source: &SourceFile, span: Span) -> u32 {
    source.line(span.end.saturating_sub(1).max(span.start))
}

/// White space that waits for the next text, because comments that come before the text change it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Space {
    /// Dropped in favour of what stands around a comment.
    Dropped,
    Blank,
    /// The end of a cell.
    Tab,
    Newline,
    /// A newline that ends the columns.
    SectionEnd,
    Indent,
    Unindent,
}

struct Printer<'a> {
    source: &'a SourceFile,
    layout: Layout,
    pending: Vec<Space>,
    indent: usize,
    /// Whether something stands on the current line of the output, be it indentation.
    line_started: bool,
    /// The line of the source on which the last text ended.
    last_line: u32,
    comments: std::iter::Peekable<std::vec::IntoIter<CommentGroup>>,
}

impl<'a> Printer<'a> {
    fn new(source: &'a SourceFile, comments: Vec<CommentGroup>) -> Self {
        Self {
            source,
            layout: Layout::default(),
            pending: Vec::new(),
            indent: 0,
            line_started: false,
            last_line: 1,
            comments: comments.into_iter().peekable(),
        }
    }

    /// The text, with the comments that follow everything else.
    fn finish(mut self) -> String {
        while let Some(group) = self.comments.next() {
            for comment in group {
                self.space_before_comment(comment, u32::MAX);
                self.comment(comment);
            }
        }
        self.layout.finish()
    }

    fn space(&mut self, spaces: &[Space]) {
        self.pending.extend_from_slice(spaces);
    }

    /// Writes a text that stands at a place of the source, after the comments before that place.
    fn at(&mut self, span: Span, text: &str) {
        self.comments_before(span.start);
        self.start_line();
        self.layout.verbatim_lines(text);
        self.last_line = last_line(self.source, span);
    }

    /// Writes a text that follows the one before whatever comments stand between: those come after it.
    fn follow(&mut self, text: &str) {
        self.write_pending(self.pending.len());
        self.start_line();
        self.layout.text(text);
    }

    fn comments_before(&mut self, offset: u32) {
        let next_line = self.source.line(offset);
        let mut last = None;
        while let Some(group) = self.comments.next_if(|group| group.first().is_some_and(|first| first.start <= offset))
        {
            for comment in group {
                self.space_before_comment(comment, next_line);
                self.comment(comment);
                last = Some(comment);
            }
        }
        match last {
            Some(last) => self.space_after_comments(last, next_line),
            None => self.write_pending(self.pending.len()),
        }
    }

    fn comment(&mut self, comment: Span) {
        let text = comment_text(self.source.slice(comment));
        self.start_line();
        self.layout.verbatim(&text);
        self.last_line = last_line(self.source, comment);
    }

    fn space_before_comment(&mut self, comment: Span, next_line: u32) {
        if self.layout.is_empty() {
            return;
        }
        let line = self.source.line(comment.start);
        if line == self.last_line {
            self.start_line();
            if line == next_line {
                self.layout.text(" ");
            } else {
                self.layout.tab(true);
            }
            return;
        }
        // Indentation that stands first is meant for the comment too. What stands behind other space is not.
        let is_indentation = |space: &Space| matches!(space, Space::Indent | Space::Unindent);
        if let Some(first) = self.pending.iter().position(|space| !is_indentation(space)) {
            self.pending[first] = Space::Dropped;
            self.write_pending(first);
        }
        self.newlines(line.saturating_sub(self.last_line), true);
    }

    fn space_after_comments(&mut self, last: Span, next_line: u32) {
        if self.source.slice(last).starts_with("/*") && next_line == self.last_line {
            self.layout.text(" ");
        }
        let ends_section = self.pending.contains(&Space::SectionEnd);
        self.pending.retain(|space| matches!(space, Space::Indent | Space::Unindent));
        self.write_pending(self.pending.len());
        self.newlines(next_line.saturating_sub(self.last_line), ends_section);
    }

    fn newlines(&mut self, count: u32, ends_section: bool) {
        for _ in 0..count.min(NEWLINES_MAX) {
            self.newline(ends_section);
        }
    }

    fn newline(&mut self, ends_section: bool) {
        self.layout.newline(ends_section);
        self.line_started = false;
    }

    fn start_line(&mut self) {
        if !self.line_started {
            self.line_started = true;
            for _ in 0..self.indent {
                self.layout.tab(true);
            }
        }
    }

    fn write_pending(&mut self, count: usize) {
        for index in 0..count {
            match self.pending[index] {
                Space::Dropped => {}
                Space::Blank => {
                    self.start_line();
                    self.layout.text(" ");
                }
                Space::Tab => {
                    self.start_line();
                    self.layout.tab(false);
                }
                Space::Newline => self.newline(false),
                Space::SectionEnd => self.newline(true),
                Space::Indent => self.indent += 1,
                Space::Unindent => self.indent = self.indent.saturating_sub(1),
            }
        }
        self.pending.drain(..count);
    }

    fn start_line_of(&self, span: Span) -> u32 {
        self.source.line(span.start)
    }

    fn is_on_one_line(&self, span: Span) -> bool {
        self.start_line_of(span) == last_line(self.source, span)
    }

    fn stmts(&mut self, stmts: &[Stmt]) {
        let mut previous: Option<&Stmt> = None;
        for stmt in stmts {
            if let Some(previous) = previous {
                let blank_in_source =
                    self.start_line_of(stmt.span()) > last_line(self.source, previous.span()).saturating_add(1);
                if blank_in_source || matches!(stmt, Stmt::Block(_)) {
                    self.space(&[Space::SectionEnd]);
                }
            }
            match stmt {
                Stmt::Attr(attr) => {
                    self.at(attr.name.span, &attr.name.text);
                    self.space(&[Space::Tab]);
                    self.follow("=");
                    self.space(&[Space::Blank]);
                    self.expr(&attr.value);
                }
                Stmt::Block(block) => self.block(block),
            }
            // What spans lines is in no column with what follows.
            let end = if self.is_on_one_line(stmt.span()) { Space::Newline } else { Space::SectionEnd };
            self.space(&[end]);
            previous = Some(stmt);
        }
    }

    fn block(&mut self, block: &Block) {
        self.block_name(block);
        if let Some(label) = &block.label {
            self.space(&[Space::Blank]);
            self.at(label.span, &quote(&label.text));
        }
        self.space(&[Space::Blank]);
        self.at(block.open, "{");
        self.space(&[Space::Indent]);
        if block.body.is_empty() {
            self.space(&[Space::Blank]);
        } else {
            self.space(&[Space::SectionEnd]);
            self.stmts(&block.body);
        }
        self.space(&[Space::Unindent]);
        self.at(block.close, "}");
    }

    fn block_name(&mut self, block: &Block) {
        let written = self.source.slice(block.name_span);
        if written == &*block.name {
            return self.at(block.name_span, &block.name);
        }
        // There is space between the parts. A comment there must stay there: its newline would end the statement
        // anywhere else.
        for token in lex(&SourceFile::new("", written)).0 {
            let start = block.name_span.start + token.span.start;
            let span = Span::new(start, start + token.span.len() as u32);
            match token.kind {
                TokenKind::Ident => self.at(span, self.source.slice(span)),
                TokenKind::Dot => self.follow("."),
                _ => {}
            }
        }
    }

    fn expr(&mut self, expr: &Expr) {
        let (first, links) = expr.chain();
        match first {
            Expr::Literal(literal) => self.at(literal.span, &literal.text),
            Expr::Identifier(ident) => self.at(ident.span, &ident.text),
            Expr::Unary(unary) => {
                self.at(unary.op_span, unary.op.as_str());
                self.expr(&unary.value);
            }
            Expr::Paren(paren) => {
                self.at(paren.open, "(");
                self.expr(&paren.inner);
                self.at(paren.close, ")");
            }
            Expr::Array(array) => self.array(&array.elements, array.open, array.close),
            Expr::Object(object) => self.object(object),
            Expr::Access(_) | Expr::Index(_) | Expr::Call(_) | Expr::Binary(_) => {}
        }
        for link in links {
            self.link(link);
        }
    }

    /// What is done with the expression at the left, which is written already.
    fn link(&mut self, link: &Expr) {
        match link {
            Expr::Access(access) => {
                // A point right after digits would be taken for theirs.
                if matches!(&access.value, Expr::Literal(literal) if literal.kind == LiteralKind::Number) {
                    self.space(&[Space::Blank]);
                }
                self.follow(".");
                self.at(access.name.span, &access.name.text);
            }
            Expr::Index(index) => {
                self.at(index.open, "[");
                self.expr(&index.index);
                self.at(index.close, "]");
            }
            Expr::Call(call) => self.call(call),
            Expr::Binary(binary) => {
                self.space(&[Space::Blank]);
                self.at(binary.op_span, binary.op.as_str());
                self.space(&[Space::Blank]);
                self.expr(&binary.right);
            }
            _ => {}
        }
    }

    fn array(&mut self, elements: &[Expr], open: Span, close: Span) {
        self.at(open, "[");
        let mut line = last_line(self.source, open);
        for (index, element) in elements.iter().enumerate() {
            let span = element.span();
            let own_line = self.start_line_of(span) != line;
            if own_line {
                // The indentation stands before the newline, so that comments before the element have it too.
                self.space(&[Space::Indent, Space::SectionEnd]);
            } else if index > 0 {
                self.space(&[Space::Blank]);
            }
            self.expr(element);
            line = last_line(self.source, span);
            if index + 1 < elements.len() {
                self.follow(",");
            }
            if own_line {
                self.space(&[Space::Unindent]);
            }
        }
        if !elements.is_empty() {
            self.end_list(line, close);
        }
        self.at(close, "]");
    }

    fn call(&mut self, call: &Call) {
        self.follow("(");
        let mut line = self.start_line_of(call.open);
        for (index, arg) in call.args.iter().enumerate() {
            let span = arg.span();
            let own_line = self.start_line_of(span) != line;
            if own_line {
                self.space(&[Space::SectionEnd, Space::Indent]);
            }
            self.expr(arg);
            line = last_line(self.source, span);
            if index + 1 < call.args.len() {
                self.follow(",");
                self.space(&[Space::Blank]);
            }
            if own_line {
                self.space(&[Space::Unindent]);
            }
        }
        if !call.args.is_empty() {
            self.end_list(line, call.close);
        }
        self.at(call.close, ")");
    }

    /// What comes between the last element of a list, which ends on `line`, and the bracket.
    fn end_list(&mut self, line: u32, close: Span) {
        if self.start_line_of(close) != line {
            self.follow(",");
            // The indentation is for comments after the last element.
            self.space(&[Space::Indent, Space::SectionEnd, Space::Unindent]);
        }
    }

    fn object(&mut self, object: &Object) {
        self.at(object.open, "{");
        self.space(&[Space::Indent]);
        let mut line = last_line(self.source, object.open);
        let mut previous: Option<&Field> = None;
        for field in &object.fields {
            if let Some(previous) = previous {
                self.follow(",");
                if self.start_line_of(field.name.span) != line {
                    // What spans lines is in no column with what follows.
                    let single = self.is_on_one_line(previous.value.span());
                    self.space(&[if single { Space::Newline } else { Space::SectionEnd }]);
                } else {
                    self.space(&[Space::Blank]);
                }
            } else if self.start_line_of(field.name.span) != line {
                self.space(&[Space::SectionEnd]);
            }
            line = last_line(self.source, field.name.span);
            self.at(field.name.span, &field_name(self.source, field));
            self.space(&[Space::Tab]);
            self.follow("=");
            self.space(&[Space::Blank]);
            self.expr(&field.value);
            previous = Some(field);
        }
        if previous.is_some() && self.start_line_of(object.close) != line {
            self.follow(",");
            self.space(&[Space::SectionEnd]);
        }
        self.space(&[Space::Unindent]);
        self.at(object.close, "}");
    }
}

/// The name of a field as it is written. Escapes mean nothing there, so that only the quotes may be changed, and only
/// where the text between them means the same in both.
fn field_name<'a>(source: &'a SourceFile, field: &'a Field) -> Cow<'a, str> {
    let written = source.slice(field.name.span);
    if written.starts_with('`') && !field.name.text.is_empty() {
        let quoted = quote(&field.name.text);
        if quoted.len() == written.len() && quoted[1..quoted.len() - 1] == *field.name.text {
            return Cow::Owned(quoted);
        }
    }
    Cow::Borrowed(written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parser::parse_expression;

    fn formatted(text: &str) -> String {
        format("f", text).unwrap_or_else(|diagnostics| diagnostics.all_messages())
    }

    #[test]
    fn a_text_that_is_not_valid_is_not_formatted() {
        assert_eq!(formatted("a = "), "f:1:5: expected expression, got EOF");
    }

    #[test]
    fn byte_order_marks_and_carriage_returns_go() {
        assert_eq!(formatted(""), "\n");
        assert_eq!(
            formatted("\u{feff}a = 1 // c\r\n\r\n\r\n/* d\r\n *\r/*/\r\nb = 2\r\n"),
            "a = 1 // c\n\n/* d\n *\r/*/\nb = 2\n"
        );
    }

    /// Where the reference changes what a text says or makes it invalid, these results differ from its own.
    #[test]
    fn what_a_text_says_is_kept() {
        let cases = [
            // It adds a comma that is not valid.
            ("a = f(\n)", "a = f()\n"),
            ("a = f(\n// c\n)", "a = f(\n// c\n)\n"),
            // It escapes the raw name, which makes it another one, and again on each run.
            (
                "a = {\"b\\\"\\\\\" = 1, `c\"\\` = 2, `d` = 3, `\u{a0}` = 4}",
                "a = {\"b\\\"\\\\\" = 1, `c\"\\` = 2, \"d\" = 3, `\u{a0}` = 4}\n",
            ),
            // It aligns at tabs within strings and trims their lines.
            ("a = `x\t\n y \t\n`", "a = `x\t\n y \t\n`\n"),
            ("a = \"x\ty\"\nbbb = 1", "a   = \"x\ty\"\nbbb = 1\n"),
            // It puts the rest of the statement into the comment.
            ("a = // c\n(1)", "a = // c\n(1)\n"),
            ("a = x.// c\ny", "a = x. // c\ny\n"),
            ("a.// c\nb { }", "a. // c\nb { }\n"),
            // It moves comments out of a call.
            ("a = f(1, // c\n)", "a = f(1, // c\n)\n"),
            ("a = f(\n1,\n// c\n)", "a = f(\n\t1,\n\t// c\n)\n"),
        ];
        for (text, expected) in cases {
            assert_eq!(formatted(text), expected, "{text}");
            assert_eq!(formatted(expected), expected, "{text}");
        }
    }

    #[test]
    fn a_second_run_may_align_what_the_first_joined() {
        // As in the reference: the first run sees an attribute on several lines, which ends the columns.
        let once = formatted("a = [\n]\nlong = 1\n");
        assert_eq!(once, "a = []\nlong = 1\n");
        assert_eq!(formatted(&once), "a    = []\nlong = 1\n");
    }

    #[test]
    fn the_text_of_an_expression_is_as_formatted() {
        let cases = [
            ("a+b", "a + b"),
            ("- ( x . y [ 0 ] )", "-(x.y[0])"),
            ("{a=1,`b`=[1,2,],}", "{a = 1, \"b\" = [1, 2]}"),
            ("f ( 1 ,2 )", "f(1, 2)"),
            ("[ // c\n1,\n{a = 1,\nlong = 2},\n]", "[\n\t1,\n\t{a = 1,\n\t\tlong = 2},\n]"),
            ("1 .x", "1 .x"),
        ];
        for (text, expected) in cases {
            let parsed = parse_expression("", text);
            assert!(parsed.diagnostics.is_empty(), "{}", parsed.diagnostics);
            assert_eq!(expression_text(&parsed.source, &parsed.expr), expected, "{text}");
        }
    }
}
