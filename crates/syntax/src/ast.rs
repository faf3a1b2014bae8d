//! The syntax tree: what a text says, with the bytes that say it.
//!
//! Nodes are shared (`Arc`), so that a block or an expression is cheap to keep beyond the file that it came from.
//! Comments and white space are not in the tree; they are in the token list beside it
//! ([`Parsed::tokens`](crate::Parsed::tokens)).

use std::fmt;
use std::sync::{Arc, LazyLock};

use crate::source::{SourceFile, Span};

/// A parsed file.
#[derive(Clone, Debug)]
pub struct File {
    /// The text that was parsed.
    pub source: Arc<SourceFile>,
    /// Its statements.
    pub body: Body,
}

/// The statements of a file or a block, in textual order.
pub type Body = Vec<Stmt>;

/// One statement.
#[derive(Clone, Debug)]
pub enum Stmt {
    /// `name = value`.
    Attr(Arc<Attr>),
    /// `name "label" { … }`.
    Block(Arc<Block>),
}

impl Stmt {
    /// The bytes of the whole statement.
    pub fn span(&self) -> Span {
        match self {
            Stmt::Attr(attr) => attr.span(),
            Stmt::Block(block) => block.span,
        }
    }

    /// Whether two statements say the same, whatever their layout and position.
    pub fn same_text(&self, other: &Stmt) -> bool {
        match (self, other) {
            (Stmt::Attr(a), Stmt::Attr(b)) => a.same_text(b),
            (Stmt::Block(a), Stmt::Block(b)) => a.same_text(b),
            _ => false,
        }
    }
}

/// A name with its place.
#[derive(Clone, Debug)]
pub struct Ident {
    /// The name.
    pub text: Arc<str>,
    /// Its bytes. For a quoted field name they include the quotes.
    pub span: Span,
}

/// An attribute: `name = value`.
#[derive(Clone, Debug)]
pub struct Attr {
    /// The text that the attribute stands in.
    pub source: Arc<SourceFile>,
    /// The name.
    pub name: Ident,
    /// The value.
    pub value: Expr,
}

impl Attr {
    /// The bytes from the name to the end of the value.
    pub fn span(&self) -> Span {
        self.name.span.to(self.value.span())
    }

    /// Whether two attributes say the same, whatever their layout and position.
    pub fn same_text(&self, other: &Attr) -> bool {
        self.name.text == other.name.text && self.value.same_text(&other.value)
    }
}

/// A block: `name "label" { … }`.
#[derive(Clone, Debug)]
pub struct Block {
    /// The text that the block stands in.
    pub source: Arc<SourceFile>,
    /// The name with its dots, without spaces: `loki.source.file`.
    pub name: Arc<str>,
    /// The bytes of the name.
    pub name_span: Span,
    /// The label without its quotes. The empty label `""` is no label.
    pub label: Option<Label>,
    /// The statements between the braces.
    pub body: Body,
    /// The bytes from the name to the closing brace.
    pub span: Span,
    /// The opening brace.
    pub open: Span,
    /// The closing brace.
    pub close: Span,
}

/// The label of a block.
#[derive(Clone, Debug)]
pub struct Label {
    /// The text between the quotes, a valid identifier.
    pub text: Arc<str>,
    /// The bytes, quotes included.
    pub span: Span,
}

impl Block {
    /// The parts of the name between its dots.
    pub fn name_parts(&self) -> impl Iterator<Item = &str> {
        self.name.split('.')
    }

    /// The label, when there is one.
    pub fn label(&self) -> Option<&str> {
        self.label.as_ref().map(|label| &*label.text)
    }

    /// The name and the label joined by a dot, as the block is referred to: `local.file.token`.
    pub fn id(&self) -> String {
        match &self.label {
            Some(label) => format!("{}.{}", self.name, label.text),
            None => self.name.to_string(),
        }
    }

    /// Whether two blocks say the same, whatever their layout and position.
    pub fn same_text(&self, other: &Block) -> bool {
        self.name == other.name && self.label() == other.label() && same_body(&self.body, &other.body)
    }
}

/// Whether two bodies say the same, whatever their layout and position.
pub fn same_body(a: &[Stmt], b: &[Stmt]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same_text(b))
}

/// An expression.
#[derive(Clone)]
pub enum Expr {
    /// `1`, `"text"`, `true`, `null`.
    Literal(Arc<Literal>),
    /// `name`.
    Identifier(Ident),
    /// `value.name`.
    Access(Arc<Access>),
    /// `value[index]`.
    Index(Arc<Index>),
    /// `function(args)`.
    Call(Arc<Call>),
    /// `-value`, `!value`.
    Unary(Arc<Unary>),
    /// `left + right`.
    Binary(Arc<Binary>),
    /// `(inner)`.
    Paren(Arc<Paren>),
    /// `[elements]`.
    Array(Arc<Array>),
    /// `{fields}`.
    Object(Arc<Object>),
}

/// A literal, unevaluated.
#[derive(Clone, Debug)]
pub struct Literal {
    /// What kind of literal it is.
    pub kind: LiteralKind,
    /// The text as written: a string with its quotes and escapes, a number with its spelling. A raw string keeps the
    /// carriage returns that its value leaves out.
    pub text: Box<str>,
    /// Its bytes.
    pub span: Span,
}

/// The kinds of literals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LiteralKind {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool,
    /// Digits only: `010` is octal to the evaluator.
    Number,
    /// Digits with a point or an exponent.
    Float,
    /// A double-quoted string or a raw string between backticks.
    String,
}

/// `value.name`.
#[derive(Clone, Debug)]
pub struct Access {
    /// What is looked into.
    pub value: Expr,
    /// The name of the field.
    pub name: Ident,
}

/// `value[index]`.
#[derive(Clone, Debug)]
pub struct Index {
    /// What is looked into.
    pub value: Expr,
    /// The place or the key.
    pub index: Expr,
    /// The opening bracket.
    pub open: Span,
    /// The closing bracket.
    pub close: Span,
}

/// `function(args)`.
#[derive(Clone, Debug)]
pub struct Call {
    /// What is called.
    pub function: Expr,
    /// The arguments, in order.
    pub args: Vec<Expr>,
    /// The opening parenthesis.
    pub open: Span,
    /// The closing parenthesis.
    pub close: Span,
}

/// `-value`, `!value`.
#[derive(Clone, Debug)]
pub struct Unary {
    /// The operator.
    pub op: UnaryOp,
    /// The bytes of the operator.
    pub op_span: Span,
    /// The operand.
    pub value: Expr,
}

/// The operators with one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnaryOp {
    /// `!`
    Not,
    /// `-`
    Neg,
}

/// `left op right`.
#[derive(Clone, Debug)]
pub struct Binary {
    /// The operator.
    pub op: BinaryOp,
    /// The bytes of the operator.
    pub op_span: Span,
    /// The left operand.
    pub left: Expr,
    /// The right operand.
    pub right: Expr,
}

/// The operators with two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BinaryOp {
    /// `||`
    Or,
    /// `&&`
    And,
    /// `==`
    Eq,
    /// `!=`
    Ne,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `>`
    Gt,
    /// `>=`
    Ge,
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
    /// `%`
    Mod,
    /// `^`
    Pow,
}

/// `(inner)`.
#[derive(Clone, Debug)]
pub struct Paren {
    /// What stands between the parentheses.
    pub inner: Expr,
    /// The opening parenthesis.
    pub open: Span,
    /// The closing parenthesis.
    pub close: Span,
}

/// `[elements]`.
#[derive(Clone, Debug)]
pub struct Array {
    /// The elements, in order.
    pub elements: Vec<Expr>,
    /// The opening bracket.
    pub open: Span,
    /// The closing bracket.
    pub close: Span,
}

/// `{fields}`.
#[derive(Clone, Debug)]
pub struct Object {
    /// The fields as written: of several with one name the last counts.
    pub fields: Vec<Field>,
    /// The opening brace.
    pub open: Span,
    /// The closing brace.
    pub close: Span,
}

/// `name = value` within an object.
#[derive(Clone, Debug)]
pub struct Field {
    /// The name. Of a quoted one this is the raw text between the quotes: escapes are not processed.
    pub name: Ident,
    /// Whether the name stands in quotes or backticks.
    pub quoted: bool,
    /// The value.
    pub value: Expr,
}

impl Expr {
    /// The bytes of the whole expression.
    pub fn span(&self) -> Span {
        let mut end = self;
        let end = loop {
            match end {
                Expr::Unary(e) => end = &e.value,
                Expr::Binary(e) => end = &e.right,
                Expr::Literal(e) => break e.span,
                Expr::Identifier(e) => break e.span,
                Expr::Access(e) => break e.name.span,
                Expr::Index(e) => break e.close,
                Expr::Call(e) => break e.close,
                Expr::Paren(e) => break e.close,
                Expr::Array(e) => break e.close,
                Expr::Object(e) => break e.close,
            }
        };
        Span::new(self.start(), end.end)
    }

    /// Offset of the first byte of the expression.
    pub fn start(&self) -> u32 {
        let mut start = self;
        loop {
            match start {
                Expr::Access(e) => start = &e.value,
                Expr::Index(e) => start = &e.value,
                Expr::Call(e) => start = &e.function,
                Expr::Binary(e) => start = &e.left,
                Expr::Literal(e) => return e.span.start,
                Expr::Identifier(e) => return e.span.start,
                Expr::Unary(e) => return e.op_span.start,
                Expr::Paren(e) => return e.open.start,
                Expr::Array(e) => return e.open.start,
                Expr::Object(e) => return e.open.start,
            }
        }
    }

    /// What stands at the left within an operator, an access, an index or a call; nothing for all else.
    ///
    /// Chains like `a + b + c` and `a.b.c` are as deep on this side as they are long, so that whatever looks at all of an
    /// expression goes down this side in a loop. On the other sides the depth is limited by the parser.
    pub fn left(&self) -> Option<&Expr> {
        match self {
            Expr::Access(e) => Some(&e.value),
            Expr::Index(e) => Some(&e.value),
            Expr::Call(e) => Some(&e.function),
            Expr::Binary(e) => Some(&e.left),
            _ => None,
        }
    }

    /// The same to be changed, where nobody else holds the node.
    fn left_mut(&mut self) -> Option<&mut Expr> {
        match self {
            Expr::Access(e) => Arc::get_mut(e).map(|e| &mut e.value),
            Expr::Index(e) => Arc::get_mut(e).map(|e| &mut e.value),
            Expr::Call(e) => Arc::get_mut(e).map(|e| &mut e.function),
            Expr::Binary(e) => Arc::get_mut(e).map(|e| &mut e.left),
            _ => None,
        }
    }

    /// The leftmost expression, and what is done with it, first things first.
    pub fn chain(&self) -> (&Expr, Vec<&Expr>) {
        let (mut at, mut links) = (self, Vec::new());
        while let Some(left) = at.left() {
            links.push(at);
            at = left;
        }
        links.reverse();
        (at, links)
    }

    /// Whether two expressions say the same, whatever their layout and position. Spelling counts: `1` and `1.0` differ.
    pub fn same_text(&self, other: &Expr) -> bool {
        fn all(a: &[Expr], b: &[Expr]) -> bool {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same_text(b))
        }
        let (mut a, mut b) = (self, other);
        loop {
            let same = match (a, b) {
                (Expr::Access(a), Expr::Access(b)) => a.name.text == b.name.text,
                (Expr::Index(a), Expr::Index(b)) => a.index.same_text(&b.index),
                (Expr::Call(a), Expr::Call(b)) => all(&a.args, &b.args),
                (Expr::Binary(a), Expr::Binary(b)) => a.op == b.op && a.right.same_text(&b.right),
                (Expr::Literal(a), Expr::Literal(b)) => a.kind == b.kind && a.text == b.text,
                (Expr::Identifier(a), Expr::Identifier(b)) => a.text == b.text,
                (Expr::Unary(a), Expr::Unary(b)) => a.op == b.op && a.value.same_text(&b.value),
                (Expr::Paren(a), Expr::Paren(b)) => a.inner.same_text(&b.inner),
                (Expr::Array(a), Expr::Array(b)) => all(&a.elements, &b.elements),
                (Expr::Object(a), Expr::Object(b)) => {
                    a.fields.len() == b.fields.len()
                        && a.fields
                            .iter()
                            .zip(&b.fields)
                            .all(|(a, b)| a.name.text == b.name.text && a.value.same_text(&b.value))
                }
                _ => false,
            };
            match (same, a.left(), b.left()) {
                (true, Some(left), Some(other)) => (a, b) = (left, other),
                _ => return same,
            }
        }
    }
}

/// A chain is shown as a list, so that its length does not become depth.
impl fmt::Debug for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expr::Literal(e) => e.fmt(f),
            Expr::Identifier(e) => e.fmt(f),
            Expr::Unary(e) => e.fmt(f),
            Expr::Paren(e) => e.fmt(f),
            Expr::Array(e) => e.fmt(f),
            Expr::Object(e) => e.fmt(f),
            Expr::Access(_) | Expr::Index(_) | Expr::Call(_) | Expr::Binary(_) => {
                let (first, links) = self.chain();
                f.debug_list().entry(first).entries(links.into_iter().map(Link)).finish()
            }
        }
    }
}

/// A link of a chain without what stands at its left.
struct Link<'a>(&'a Expr);

impl fmt::Debug for Link<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Expr::Access(e) => f.debug_tuple("Access").field(&e.name).finish(),
            Expr::Index(e) => f.debug_tuple("Index").field(&e.index).finish(),
            Expr::Call(e) => f.debug_tuple("Call").field(&e.args).finish(),
            Expr::Binary(e) => f.debug_tuple("Binary").field(&e.op).field(&e.right).finish(),
            other => other.fmt(f),
        }
    }
}

/// Frees what stands at the left of a node link by link, which would otherwise take a piece of the stack for each.
fn unlink(left: &mut Expr) {
    if left.left().is_none() {
        return;
    }
    let mut at = std::mem::replace(left, nothing());
    // Where somebody else holds a node, they free what is behind it.
    while let Some(next) = at.left_mut() {
        at = std::mem::replace(next, nothing());
    }
}

/// Stands for an expression that was taken out of a node on its way to being freed.
fn nothing() -> Expr {
    static NOTHING: LazyLock<Arc<Literal>> =
        LazyLock::new(|| Arc::new(Literal { kind: LiteralKind::Null, text: "null".into(), span: Span::default() }));
    Expr::Literal(Arc::clone(&NOTHING))
}

impl Drop for Access {
    fn drop(&mut self) {
        unlink(&mut self.value);
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        unlink(&mut self.value);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        unlink(&mut self.function);
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        unlink(&mut self.left);
    }
}

impl UnaryOp {
    /// The operator as written.
    pub fn as_str(self) -> &'static str {
        match self {
            UnaryOp::Not => "!",
            UnaryOp::Neg => "-",
        }
    }
}

impl fmt::Display for UnaryOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl BinaryOp {
    /// The operator as written.
    pub fn as_str(self) -> &'static str {
        match self {
            BinaryOp::Or => "||",
            BinaryOp::And => "&&",
            BinaryOp::Eq => "==",
            BinaryOp::Ne => "!=",
            BinaryOp::Lt => "<",
            BinaryOp::Le => "<=",
            BinaryOp::Gt => ">",
            BinaryOp::Ge => ">=",
            BinaryOp::Add => "+",
            BinaryOp::Sub => "-",
            BinaryOp::Mul => "*",
            BinaryOp::Div => "/",
            BinaryOp::Mod => "%",
            BinaryOp::Pow => "^",
        }
    }
}

impl fmt::Display for BinaryOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
