//! The text of a configuration as it may be shown: what it says of secrets is masked.
//!
//! Which literals are secret is told by the tables of arguments. What no table knows, because it stands in a comment or in a
//! text that is no configuration, is masked by its name.

use std::ops::Range;
use std::sync::Arc;

use corten_component::secrets::{SecretBook, is_secret_name, push_mask};
use corten_config::schema::{Body, FieldKind, Schema, Shape, TypeInfo};
use corten_syntax::{Block, Diagnostic, Diagnostics, Expr, LiteralKind, SourceFile, Stmt, parse};

use crate::graph::Catalog;

/// Functions whose arguments say where a value is rather than what it is.
const NAMING: &[&str] = &["env", "sys.env"];

/// The text of a file, whole and with as many lines.
pub(crate) fn file(source: &SourceFile, catalog: &Catalog, book: &SecretBook) -> String {
    let parsed = parse(source.name(), source.text());
    let mut ranges = Vec::new();
    for statement in &parsed.file.body {
        if let Stmt::Block(block) = statement {
            of_block(block, catalog, &mut ranges);
        }
    }
    by_name(source.text(), 0, &mut ranges);
    masked(source.text(), 0..source.text().len(), &mut ranges, book)
}

/// The text of a block.
pub(crate) fn block(block: &Block, catalog: &Catalog, book: &SecretBook) -> String {
    let (part, mut ranges) = ranges_in(block, catalog);
    masked(block.source.text(), part, &mut ranges, book)
}

/// Where a block stands, and what of it is masked.
fn ranges_in(block: &Block, catalog: &Catalog) -> (Range<usize>, Vec<Range<usize>>) {
    let part = block.span.start as usize..block.span.end as usize;
    let mut ranges = Vec::new();
    of_block(block, catalog, &mut ranges);
    // What stands before the block is not read: a quote that is never closed there would hide what the block says.
    by_name(block.source.text().get(part.clone()).unwrap_or_default(), part.start, &mut ranges);
    (part, ranges)
}

/// The texts of the attributes and blocks in a block, under their names, in their order.
pub(crate) fn arguments(block: &Block, catalog: &Catalog, book: &SecretBook) -> Vec<(String, String)> {
    let (_, mut ranges) = ranges_in(block, catalog);
    let mut seen: std::collections::HashMap<String, usize> = std::collections::HashMap::new();
    let mut arguments = Vec::new();
    for statement in &block.body {
        let (name, span) = match statement {
            Stmt::Attr(attribute) => {
                let span = statement.span();
                let value = attribute.value.start().max(span.start);
                (attribute.name.text.to_string(), value as usize..span.end as usize)
            }
            Stmt::Block(inner) => (inner.id(), inner.span.start as usize..inner.span.end as usize),
        };
        let nth = seen.entry(name.clone()).or_default();
        *nth += 1;
        let name = if *nth > 1 { format!("{name} #{nth}") } else { name };
        arguments.push((name, masked(block.source.text(), span, &mut ranges, book)));
    }
    arguments
}

/// A part of a text without what lies at some places of it, and without other secrets.
fn masked(text: &str, part: Range<usize>, ranges: &mut [Range<usize>], book: &SecretBook) -> String {
    ranges.sort_by_key(|range| (range.start, range.end));
    let mut out = String::with_capacity(part.len());
    let mut at = part.start;
    for range in ranges {
        // Where two places overlap, all of both is masked.
        let (start, end) = (range.start.max(at), range.end.min(part.end));
        if start >= end {
            continue;
        }
        out.push_str(text.get(at..start).unwrap_or_default());
        out.push('"');
        push_mask(text.get(start..end).unwrap_or_default(), &mut out);
        out.push('"');
        at = end;
    }
    out.push_str(text.get(at..part.end).unwrap_or_default());
    book.redact(&mut out);
    out
}

fn of_block(block: &Block, catalog: &Catalog, into: &mut Vec<Range<usize>>) {
    if let Some((_, definition)) = catalog.definition(&block.name) {
        body(&block.body, definition.arguments, into);
    }
}

fn body(statements: &[Stmt], schema: &'static Schema, into: &mut Vec<Range<usize>>) {
    for statement in statements {
        match statement {
            Stmt::Attr(attribute) => {
                if let Some(ty) = schema.attr(&attribute.name.text) {
                    expression(&attribute.value, ty, into);
                }
            }
            Stmt::Block(block) => match body_of(schema, &block.name) {
                Some(Body::Struct(schema)) => body(&block.body, schema(), into),
                Some(Body::Map { element, .. }) => {
                    for statement in &block.body {
                        if let Stmt::Attr(attribute) = statement {
                            expression(&attribute.value, element, into);
                        }
                    }
                }
                None => {}
            },
        }
    }
}

/// What stands between the braces of a block of that name.
fn body_of(schema: &'static Schema, name: &str) -> Option<Body> {
    schema.fields.iter().find_map(|field| match field.kind {
        FieldKind::Block { block, .. } if field.name == name => Some(block.body),
        FieldKind::Group { prefix, group } => {
            let variant = name.strip_prefix(prefix)?.strip_prefix('.')?;
            (group.one_of)().variants.iter().find(|known| known.name == variant).map(|known| known.body)
        }
        FieldKind::Flatten { schema, .. } => body_of(schema(), name),
        _ => None,
    })
}

/// Whether a value of that type can hold a secret.
fn may_hold(ty: &TypeInfo) -> bool {
    match ty.shape {
        Shape::Secret => true,
        Shape::List(element) | Shape::Array(element, _) | Shape::Map(element) => may_hold(element),
        Shape::Object(schema) => schema().fields.iter().any(|field| match field.kind {
            FieldKind::Attr { ty, .. } => may_hold(ty),
            _ => false,
        }),
        _ => false,
    }
}

fn expression(expr: &Expr, ty: &TypeInfo, into: &mut Vec<Range<usize>>) {
    if !may_hold(ty) {
        return;
    }
    match (expr, ty.shape) {
        (Expr::Object(object), Shape::Map(element)) => {
            object.fields.iter().for_each(|field| expression(&field.value, element, into));
        }
        (Expr::Object(object), Shape::Object(schema)) => {
            for field in &object.fields {
                if let Some(ty) = schema().attr(&field.name.text) {
                    expression(&field.value, ty, into);
                }
            }
        }
        (Expr::Array(array), Shape::List(element) | Shape::Array(element, _)) => {
            array.elements.iter().for_each(|item| expression(item, element, into));
        }
        _ => literals(expr, into),
    }
}

/// All texts in an expression.
fn literals(expr: &Expr, into: &mut Vec<Range<usize>>) {
    let mut open = vec![expr];
    while let Some(expr) = open.pop() {
        let (first, links) = expr.chain();
        match first {
            Expr::Literal(literal) if literal.kind == LiteralKind::String => {
                into.push(literal.span.start as usize..literal.span.end as usize);
            }
            Expr::Unary(unary) => open.push(&unary.value),
            Expr::Paren(paren) => open.push(&paren.inner),
            Expr::Array(array) => open.extend(&array.elements),
            Expr::Object(object) => open.extend(object.fields.iter().map(|field| &field.value)),
            _ => {}
        }
        let mut name = match first {
            Expr::Identifier(ident) => ident.text.to_string(),
            _ => String::new(),
        };
        for link in links {
            match link {
                Expr::Access(access) => {
                    name.push('.');
                    name.push_str(&access.name.text);
                }
                Expr::Call(call) if !NAMING.contains(&name.as_str()) => open.extend(&call.args),
                Expr::Index(index) => open.push(&index.index),
                Expr::Binary(binary) => open.push(&binary.right),
                _ => {}
            }
        }
    }
}

/// Adds the texts that are given to what is called like a secret, wherever that stands in a text that begins at a place of
/// another one.
fn by_name(text: &str, offset: usize, into: &mut Vec<Range<usize>>) {
    let bytes = text.as_bytes();
    let mut from = 0;
    while let Some(equals) = text[from..].find('=').map(|at| from + at) {
        from = equals + 1;
        let before = text[..equals].trim_end_matches([' ', '\t']).trim_end_matches('"');
        let start = before.rfind(|c: char| !(c.is_ascii_alphanumeric() || "_-".contains(c)));
        let name = &before[start.map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8))..];
        let value =
            equals + 1 + bytes[equals + 1..].iter().take_while(|byte| **byte == b' ' || **byte == b'\t').count();
        if name.is_empty() || !is_secret_name(name) {
            continue;
        }
        // Of a list all texts are secret.
        let in_list = bytes.get(value) == Some(&b'[');
        let mut at = value + usize::from(in_list);
        loop {
            if in_list {
                at += bytes[at..].iter().take_while(|byte| byte.is_ascii_whitespace() || **byte == b',').count();
            }
            let Some(end) = end_of_text(text, at) else { break };
            into.push(offset + at..offset + end);
            at = end;
            from = end.max(from);
            if !in_list {
                break;
            }
        }
    }
}

/// Where the text in quotes ends that begins there, if one does.
fn end_of_text(text: &str, start: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    match bytes.get(start) {
        Some(b'`') => {
            Some(bytes[start + 1..].iter().position(|byte| *byte == b'`').map_or(bytes.len(), |at| start + at + 2))
        }
        Some(b'"') => {
            let mut at = start + 1;
            while at < bytes.len() && bytes[at] != b'"' && bytes[at] != b'\n' {
                at += if bytes[at] == b'\\' { 2 } else { 1 };
            }
            let end = if bytes.get(at) == Some(&b'"') { at + 1 } else { at };
            // An escape at the end may lead into a character.
            Some(text.ceil_char_boundary(end.min(bytes.len())))
        }
        _ => None,
    }
}

/// Texts of files as they may be shown.
pub(crate) fn files(sources: &[Arc<SourceFile>], catalog: &Catalog, book: &SecretBook) -> Vec<(String, String)> {
    let own = literals_of(sources, catalog);
    let shown = |source: &Arc<SourceFile>| own.masked(&file(source, catalog, book));
    sources.iter().map(|source| (source.name().to_string(), shown(source))).collect()
}

/// The secrets that texts have as literals. While they do not run, no other book knows them, and they may stand elsewhere
/// in these texts and in what is said of them.
pub(crate) fn literals_of(sources: &[Arc<SourceFile>], catalog: &Catalog) -> SecretBook {
    let mut literals: Vec<Arc<str>> = Vec::new();
    for source in sources {
        let mut ranges = Vec::new();
        for statement in &parse(source.name(), source.text()).file.body {
            if let Stmt::Block(block) = statement {
                of_block(block, catalog, &mut ranges);
            }
        }
        // Without the quotes. What has escapes is found as it is written, too.
        let inner = |range: Range<usize>| source.text().get(range.start + 1..range.end.checked_sub(1)?);
        literals.extend(ranges.into_iter().filter_map(inner).map(Arc::from));
    }
    let book = SecretBook::default();
    book.set(literals);
    book
}

/// Masks the messages of diagnostics.
pub(crate) fn mask_diagnostics(diagnostics: &mut Diagnostics, book: &SecretBook) {
    let mut masked = Diagnostics::new();
    for diagnostic in diagnostics.iter() {
        masked.push(Diagnostic { message: book.masked(&diagnostic.message), ..diagnostic.clone() });
    }
    *diagnostics = masked;
}

#[cfg(test)]
mod tests {
    use corten_component::Definition;
    use corten_testkit::components::COMPONENTS;
    use proptest::prelude::*;

    use super::*;
    use crate::graph::NodeKind;

    fn shown(text: &str) -> String {
        const ALL: &[Definition] = COMPONENTS;
        let catalog = Catalog::default().with(NodeKind::Component, ALL);
        file(&SourceFile::new("t", text), &catalog, &SecretBook::default())
    }

    #[test]
    fn the_literals_of_secret_arguments_are_masked() {
        for (value, expected) in [
            ("\"hush\"", "\"(secret)\""),
            ("`hu\nsh`", "\"(secret)\n\""),
            ("\"hu\" + \"sh\"", "\"(secret)\" + \"(secret)\""),
            ("string.format(\"%s\", \"hush\")", "string.format(\"(secret)\", \"(secret)\")"),
            ("sys.env(\"HUSH\")", "sys.env(\"HUSH\")"),
            ("nonsense", "nonsense"),
        ] {
            let text = |value: &str| format!("test.sink \"a\" {{\n\tpassword = {value}\n\tplace = \"open\"\n}}\n");
            assert_eq!(shown(&text(value)), text(expected), "{value}");
        }
    }

    #[test]
    fn what_no_table_knows_is_masked_by_its_name() {
        for (text, expected) in [
            ("// password = \"hush\"\n", "// password = \"(secret)\"\n"),
            ("other \"x\" {\n\tapi_key=\"hu\\\"sh\"\n", "other \"x\" {\n\tapi_key=\"(secret)\"\n"),
            ("\"auth_token\" = `hush`,", "\"auth_token\" = \"(secret)\","),
            ("token_url = \"http://a\"", "token_url = \"http://a\""),
            ("{token = [\"hu\",\n `sh`], a = [\"b\"]}", "{token = [\"(secret)\",\n \"(secret)\"], a = [\"b\"]}"),
            ("token = [", "token = ["),
            ("password = \"never ends\n", "password = \"(secret)\"\n"),
            ("url = \"http://u:hush@h/\"", "url = \"http://u:(secret)@h/\""),
        ] {
            assert_eq!(shown(text), expected);
        }
    }

    #[test]
    fn places_that_overlap_are_masked_whole() {
        // What looks like one text to who reads names is another one to who reads the configuration.
        let text = "// token = `\ntest.sink \"a\" {\n\tpassword = \"hu`sh\"\n}\n";
        assert!(!shown(text).contains("sh\""), "{}", shown(text));
        assert!(!shown(text).contains("hu"), "{}", shown(text));
    }

    #[test]
    fn what_stands_before_a_block_does_not_hide_what_it_says() {
        const ALL: &[Definition] = COMPONENTS;
        let catalog = Catalog::default().with(NodeKind::Component, ALL);
        let text = "// token = `\ntest.sink \"a\" {\n\theaders = { auth_token = \"hush\" }\n}\n";
        let source = SourceFile::new("t", text);
        let parsed = parse(source.name(), source.text());
        let Some(Stmt::Block(found)) = parsed.file.body.first() else { panic!("a block") };
        assert!(!block(found, &catalog, &SecretBook::default()).contains("hush"));
        let arguments = arguments(found, &catalog, &SecretBook::default());
        assert_eq!(arguments, [("headers".to_owned(), "{ auth_token = \"(secret)\" }".to_owned())]);
    }

    #[test]
    fn a_literal_that_is_secret_in_one_place_is_masked_in_all() {
        const ALL: &[Definition] = COMPONENTS;
        let catalog = Catalog::default().with(NodeKind::Component, ALL);
        let secret = SourceFile::new("a", "test.sink \"a\" {\n\tpassword = \"hush-hush\"\n}\n");
        let other = SourceFile::new("b", "test.sink \"b\" {\n\tplace = \"hush-hush\"\n}\n");
        let shown = files(&[secret, other], &catalog, &SecretBook::default());
        assert_eq!(shown[1].1, "test.sink \"b\" {\n\tplace = \"(secret)\"\n}\n");
    }

    proptest! {
        #[test]
        fn every_text_keeps_its_lines(text in "(test.sink \"a\" \\{\n|password ?= ?|\"|`|\\\\|\n|é|\\}|=|[a-z]){0,40}") {
            prop_assert_eq!(shown(&text).matches('\n').count(), text.matches('\n').count());
        }
    }
}
