//! `corten validate`: what `corten run` would refuse, without running anything.

use std::path::Path;

use corten_runtime::{Permissions, SourceError, source, validate};
use corten_syntax::{Diagnostic, Diagnostics, Severity};
use serde_json::json;

use crate::{families, output};

/// What fails a validation. Warnings do, too.
const FAILED: &str = "validation failed";

pub(crate) fn main(path: &str, permissions: Permissions, as_json: bool) -> Result<(), String> {
    let diagnostics = match source::read(Path::new(path)) {
        Ok(source) => validate(&source.blocks, &families::catalog(), permissions),
        Err(SourceError::Syntax(diagnostics)) => diagnostics,
        Err(SourceError::Read(error)) if as_json => Diagnostic::error_without_place(path, error).into(),
        Err(SourceError::Read(error)) => return Err(error),
    };
    if as_json {
        output::print(&format!("{}\n", as_array(&diagnostics)));
    } else if !diagnostics.is_empty() {
        output::error(&format!("{}\n", diagnostics.render(output::colour())));
    }
    if diagnostics.is_empty() { Ok(()) } else { Err(FAILED.to_owned()) }
}

fn as_array(diagnostics: &Diagnostics) -> serde_json::Value {
    let object = |diagnostic: &Diagnostic| {
        // Without an end one character is meant.
        let end = diagnostic.end.or(diagnostic.start);
        json!({
            "file": &*diagnostic.file,
            "line": diagnostic.start.map(|start| start.line),
            "column": diagnostic.start.map(|start| start.column),
            "end_line": end.map(|end| end.line),
            "end_column": end.map(|end| end.column),
            "severity": match diagnostic.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            },
            "message": diagnostic.message,
        })
    };
    diagnostics.iter().map(object).collect()
}
