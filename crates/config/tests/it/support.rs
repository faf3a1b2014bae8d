//! Bodies of blocks from text.

use std::sync::Arc;

use corten_config::Arguments;
use corten_config::decode::{self, DecodeContext, DecodeErrors, Decoded};
use corten_config::eval::Scope;
use corten_config::schema::{Schema, Stability};
use corten_config::value::{Object, Value};
use corten_syntax::{Block, Stmt, parse};

/// A block with this body, whose first line is line 2 of its file.
pub(crate) fn block(body: &str) -> Arc<Block> {
    let parsed = parse("test", &format!("component {{\n{body}\n}}"));
    assert!(parsed.diagnostics.is_empty(), "{}", parsed.diagnostics);
    match parsed.file.body.first() {
        Some(Stmt::Block(block)) => Arc::clone(block),
        _ => panic!("the test's own text is a block"),
    }
}

/// Names with values.
pub(crate) fn scope<const N: usize>(names: [(&str, Value); N]) -> Object {
    names.into_iter().map(|(name, value)| (Arc::from(name), value)).collect()
}

pub(crate) fn decoded_in<T: Arguments>(body: &str, scope: &dyn Scope) -> Result<Decoded<T>, DecodeErrors> {
    decode::decode(&block(body), &DecodeContext { scope, minimum: Stability::GenerallyAvailable })
}

/// The arguments, or the texts of all problems with their places.
pub(crate) fn decoded<T: Arguments>(body: &str) -> Result<T, Vec<String>> {
    decoded_in(body, &()).map(|decoded| decoded.value).map_err(texts)
}

/// The texts of the problems of a body that must have some.
pub(crate) fn refused<T: Arguments>(body: &str) -> Vec<String> {
    match decoded::<T>(body) {
        Ok(_) => panic!("{body} was accepted"),
        Err(texts) => texts,
    }
}

/// The texts of what a static check finds.
pub(crate) fn checked(schema: &'static Schema, body: &str, scope: &dyn Scope) -> Vec<String> {
    let cx = DecodeContext { scope, minimum: Stability::GenerallyAvailable };
    decode::check(schema, &block(body), &cx).map_or_else(texts, |()| Vec::new())
}

pub(crate) fn texts(errors: DecodeErrors) -> Vec<String> {
    let text = |diagnostic: corten_syntax::Diagnostic| diagnostic.to_string().replacen("test:", "", 1);
    errors.into_diagnostics().into_iter().map(text).collect()
}
