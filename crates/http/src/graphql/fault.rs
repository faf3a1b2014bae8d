//! What is wrong with a query, or with an answer to it.

use serde_json::{Map, Value, json};

use super::parse::Place;

/// The code of what cannot be read.
pub(super) const PARSE: &str = "GRAPHQL_PARSE_FAILED";
/// The code of what the schema does not have.
pub(super) const VALIDATION: &str = "GRAPHQL_VALIDATION_FAILED";

/// An entry of the list of errors.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fault {
    message: String,
    path: Vec<String>,
    at: Option<Place>,
    code: Option<&'static str>,
}

impl Fault {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Fault { message: message.into(), path: Vec::new(), at: None, code: None }
    }

    /// What the schema does not have, at a place of the query.
    pub(super) fn invalid(message: impl Into<String>, at: Place) -> Self {
        Fault::new(message).at(at).code(VALIDATION)
    }

    pub(super) fn at(mut self, at: Place) -> Self {
        self.at = Some(at);
        self
    }

    pub(super) fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    pub(super) fn path(mut self, path: &[&str]) -> Self {
        self.path = path.iter().map(|&step| step.to_owned()).collect();
        self
    }

    fn json(&self) -> Value {
        let mut out = Map::new();
        out.insert("message".to_owned(), self.message.as_str().into());
        if !self.path.is_empty() {
            out.insert("path".to_owned(), self.path.clone().into());
        }
        if let Some(at) = self.at {
            out.insert("locations".to_owned(), json!([{ "line": at.line, "column": at.column }]));
        }
        if let Some(code) = self.code {
            out.insert("extensions".to_owned(), json!({ "code": code }));
        }
        Value::Object(out)
    }
}

/// An answer: errors, if there are any, and data as JSON.
pub(super) fn answer(faults: &[Fault], data: &str) -> String {
    match faults {
        [] => format!("{{\"data\":{data}}}"),
        faults => {
            let faults: Vec<Value> = faults.iter().map(Fault::json).collect();
            format!("{{\"errors\":{},\"data\":{data}}}", Value::from(faults))
        }
    }
}
