//! The configuration: what runs, what a load would change, and the load itself.

use corten_component::SecretBook;
use corten_component::log::rfc3339;
use corten_runtime::{Controller, LastLoad, LoadedBy, PlannedChange};
use corten_syntax::{Diagnostic, Diagnostics, Severity};
use http::Request;
use serde_json::{Value, json};

use super::{Failure, Own, Told, check_origin};

impl Own {
    pub(super) fn config(&self) -> Value {
        let load = self.controller.last_load().borrow().clone();
        json!({
            "path": self.config_path().display().to_string(),
            "files": files(&self.controller.shown_files()),
            "lastLoad": load.map(|load| last_load(&self.controller, &load)),
            "reloadAllowed": true,
        })
    }

    pub(super) async fn plan(&self) -> Result<Told, Failure> {
        let path = self.config_path();
        let plan = self.controller.plan_reload(path).await;
        let plan = plan.map_err(|error| Failure::bad(self.secrets().redacted(&error.describe(path))))?;
        let changes = |changes: &[PlannedChange]| changes.iter().map(change).collect::<Vec<_>>();
        Ok(Told::Json(json!({
            "changed": plan.changed,
            "diagnostics": diagnostics(&plan.diagnostics, self.secrets()),
            "created": changes(&plan.created),
            "updated": changes(&plan.updated),
            "affected": changes(&plan.affected),
            "removed": changes(&plan.removed),
            "untouched": plan.untouched,
            "files": files(&plan.files),
        })))
    }

    pub(super) async fn reload(&self, request: &Request<()>) -> Result<Told, Failure> {
        check_origin(request)?;
        match self.reloader.reload(LoadedBy::Request).await {
            Ok(()) => Ok(Told::Json(json!({ "ok": true }))),
            Err(refusal) => Ok(Told::Refused(json!({
                "error": self.secrets().redacted(&refusal.text),
                "diagnostics": diagnostics(&refusal.diagnostics, self.secrets()),
            }))),
        }
    }
}

/// How a load went.
pub(super) fn last_load(controller: &Controller, load: &LastLoad) -> Value {
    let error = load.error.as_deref().unwrap_or_default();
    json!({
        "at": rfc3339(load.at),
        "ok": load.error.is_none(),
        "by": load.by.as_str(),
        "error": controller.secrets().redacted(error),
        "diagnostics": diagnostics(&load.diagnostics, controller.secrets()),
        "failed": files(&controller.shown_refused(load)),
    })
}

fn diagnostics(diagnostics: &Diagnostics, book: &SecretBook) -> Vec<Value> {
    diagnostics.iter().map(|found| diagnostic(found, book)).collect()
}

/// Without a place, line and column are zero.
fn diagnostic(diagnostic: &Diagnostic, book: &SecretBook) -> Value {
    let (start, end) = (diagnostic.start, diagnostic.end.or(diagnostic.start));
    json!({
        "file": &*diagnostic.file,
        "line": start.map_or(0, |start| start.line),
        "column": start.map_or(0, |start| start.column),
        "end_line": end.map_or(0, |end| end.line),
        "end_column": end.map_or(0, |end| end.column),
        "severity": match diagnostic.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        },
        "message": book.redacted(&diagnostic.message),
    })
}

fn files(files: &[(String, String)]) -> Vec<Value> {
    files.iter().map(|(name, text)| json!({ "name": name, "text": text })).collect()
}

fn change(change: &PlannedChange) -> Value {
    let arguments: Vec<Value> = change
        .arguments
        .iter()
        .map(|argument| json!({ "name": argument.name, "before": argument.before, "after": argument.after }))
        .collect();
    json!({ "id": change.id, "file": change.file, "line": change.line, "arguments": arguments, "why": change.why })
}
