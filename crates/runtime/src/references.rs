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
    // Chains of names, operators and calls are followed by a loop over what is still to be looked at, so that their
    // length does not matter.
    let mut open = vec![expr];
    while let Some(expr) = open.pop() {
        if let Some(names) = names(expr) {
            found.push(Traversal { names, span: expr.span(), source: Arc::clone(source) });
            continue;
        }
        match expr {
            Expr::Literal(_) | Expr::Identifier(_) => {}
            Expr::Access(access) => open.push(&access.value),
            Expr::Index(index) => open.extend([&index.index, &index.value]),
            Expr::Call(call) => {
                open.extend(call.args.iter().rev());
                open.push(&call.function);
            }
            Expr::Unary(unary) => open.push(&unary.value),
            Expr::Binary(binary) => open.extend([&binary.right, &binary.left]),
            Expr::Paren(paren) => open.push(&paren.inner),
            Expr::Array(array) => open.extend(array.elements.iter().rev()),
            Expr::Object(object) => open.extend(object.fields.iter().rev().map(|field| &field.value)),
        }
    }
}

/// The names of an expression that is nothing but names joined by dots.
fn names(expr: &Expr) -> Option<Vec<Arc<str>>> {
    let mut names = Vec::new();
    let mut at = expr;
    loop {
        match at {
            Expr::Identifier(ident) => {
                names.push(Arc::clone(&ident.text));
                names.reverse();
                return Some(names);
            }
            Expr::Access(access) => {
                names.push(Arc::clone(&access.name.text));
                at = &access.value;
            }
            _ => return None,
        }
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
}
