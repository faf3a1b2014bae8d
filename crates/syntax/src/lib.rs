//! The configuration language as text: tokens, syntax tree, diagnostics, formatter.
//!
//! This crate knows no component and no value. Parsing never fails: it returns a tree and diagnostics, and the tokens
//! give back the source byte for byte.

mod ast;
mod diag;
mod encoding;
mod format;
mod lexer;
mod parser;
mod quote;
mod source;

pub use ast::{
    Access, Array, Attr, Binary, BinaryOp, Block, Body, Call, Expr, Field, File, Ident, Index, Label, Literal,
    LiteralKind, Object, Paren, Stmt, Unary, UnaryOp, same_body,
};
pub use diag::{DIAGNOSTICS_MAX, Diagnostic, Diagnostics, Severity};
pub use encoding::{EncodingError, check_encoding, decode};
pub use format::{expression_text, format};
pub use lexer::{Token, TokenKind};
pub use parser::{
    CHAIN_MAX, DEPTH_MAX, Parsed, ParsedExpression, check_top_level, parse, parse_expression, parse_source,
};
pub use quote::{is_identifier, quote};
pub use source::{Position, SOURCE_BYTES_MAX, SourceFile, Span};
