//! `corten eval`: the value of an expression.

use corten_config::eval::evaluate;
use corten_syntax::{Diagnostics, parse_expression};

use crate::output;

/// What stands for the file in diagnostics.
const NAME: &str = "<expression>";

pub(crate) fn main(text: &str) -> Result<(), String> {
    let parsed = parse_expression(NAME, text);
    let source = parsed.source.clone();
    let expression = parsed.into_result().map_err(|errors| report(&errors))?;
    let value = evaluate(&source, &expression, &()).map_err(|error| report(&error.to_diagnostic(&source).into()))?;
    output::print(&format!("{value}\n"));
    Ok(())
}

fn report(errors: &Diagnostics) -> String {
    output::error(&format!("{}\n", errors.render(output::colour())));
    "could not evaluate the expression".to_owned()
}
