//! What the expressions of a block refer to.

use std::sync::Arc;

use corten_syntax::{Block, Expr, SourceFile, Span, Stmt};

/// A run of names joined by dots, as `local.file.token.content`. An index or a call ends it.
#[derive(Clone, Debug)]
pub struct Traversal {
    /// The names.
    pub names: Vec<Arc<str>>,
    /// The bytes from the first name to the last.
    pub span: Span,
    /// The text that it stands in.
    pub source: Arc<SourceFile>,
}

impl Traversal {
    /// The names joined by dots.
    pub fn text(&self) -> String {
        self.names.join(".")
    }
}

/// The traversals in a block, nested blocks included, each as long as it can be.
pub fn traversals(block: &Block) -> Vec<Traversal> {
    let mut found = Vec::new();
    body(&block.body, &block.source, &mut found);
    found
}

fn body(statements: &[Stmt], source: &Arc<SourceFile>, found: &mut Vec<Traversal>) {
    for statement in statements {
        match statement {
            Stmt::Attr(attribute) => expression(&attribute.value, source, found),
            Stmt::Block(block) => body(&block.body, &block.source, found),
        }
    }
}

fn expression(expr: &Expr, source: &Arc<SourceFile>, found: &mut Vec<Traversal>) {
    // A loop over what is still to be looked at, so that the length of a row does not matter.
    let mut open = vec![expr];
    while let Some(expr) = open.pop() {
        let (first, links) = expr.chain();
        let mut links = links.into_iter().peekable();
        let before = open.len();
        match first {
            Expr::Identifier(ident) => {
                let (mut names, mut span) = (vec![Arc::clone(&ident.text)], ident.span);
                while let Some(Expr::Access(access)) = links.next_if(|link| matches!(link, Expr::Access(_))) {
                    names.push(Arc::clone(&access.name.text));
                    span = span.to(access.name.span);
                }
                found.push(Traversal { names, span, source: Arc::clone(source) });
            }
            Expr::Unary(unary) => open.push(&unary.value),
            Expr::Paren(paren) => open.push(&paren.inner),
            Expr::Array(array) => open.extend(&array.elements),
            Expr::Object(object) => open.extend(object.fields.iter().map(|field| &field.value)),
            Expr::Literal(_) | Expr::Access(_) | Expr::Index(_) | Expr::Call(_) | Expr::Binary(_) => {}
        }
        for link in links {
            match link {
                Expr::Index(index) => open.push(&index.index),
                Expr::Call(call) => open.extend(&call.args),
                Expr::Binary(binary) => open.push(&binary.right),
                _ => {}
            }
        }
        // What stands first in the text is taken first.
        open[before..].reverse();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_or_a_call_ends_a_traversal() {
        let text = "x {\n\ta = b.c[d.e].f + g.h(i.j, [k]).l\n\ty {\n\t\tz = {m = -n.o, \"p\" = (q)}\n\t}\n}\n";
        let parsed = corten_syntax::parse("t", text);
        let Stmt::Block(block) = &parsed.file.body[0] else { panic!("no block") };
        let found: Vec<String> = traversals(block).iter().map(Traversal::text).collect();
        assert_eq!(found, ["b.c", "d.e", "g.h", "i.j", "k", "n.o", "q"]);
    }

    #[test]
    fn a_long_row_takes_time_by_its_length_only() {
        let text = format!("x {{\n\ta = f(){}\n}}\n", ".b".repeat(corten_syntax::CHAIN_MAX - 1));
        let parsed = corten_syntax::parse("t", &text);
        let Stmt::Block(block) = &parsed.file.body[0] else { panic!("no block") };
        assert_eq!(traversals(block).len(), 1);
    }
}
