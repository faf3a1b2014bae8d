//! Sends entries different ways.

use crate::build::{Built, Fields, condition};
use crate::entry::Entry;
use crate::expr::{Program, Template};
use crate::value::{Text, Value};

/// Sends each entry by the first route whose condition holds.
pub(crate) struct Router {
    pub(crate) routes: Vec<Route>,
}

/// A way for entries.
pub(crate) struct Route {
    /// Nothing: it is for all.
    when: Option<Program>,
    attributes: Vec<(Text, Template)>,
    /// The names of the operators that it leads to.
    pub(crate) names: Vec<String>,
    /// Their places.
    pub(crate) outputs: Vec<usize>,
}

impl Router {
    pub(super) fn new(fields: &Fields<'_>) -> Built<Self> {
        let mut routes = Vec::new();
        match fields.get("routes") {
            None => {}
            Some(Value::List(list)) => {
                for (at, route) in list.iter().enumerate() {
                    let Value::Map(map) = route else {
                        return Err(format!("'routes[{at}]' expected a map, got '{}'", route.go_type()));
                    };
                    let fields = Fields::of(map);
                    let text = fields.text_or("expr", "")?;
                    let when = Some(condition(&text)?);
                    let attributes = fields
                        .templates("attributes")
                        .map_err(|error| format!("failed to build attributer for route '{text}': {error}"))?;
                    routes.push(Route { when, attributes, names: fields.texts("output")?, outputs: Vec::new() });
                }
            }
            Some(other) => return Err(format!("'routes' expected a list, got '{}'", other.go_type())),
        }
        if fields.get("default").is_some() {
            let names = fields.texts("default")?;
            routes.push(Route { when: None, attributes: Vec::new(), names, outputs: Vec::new() });
        }
        Ok(Router { routes })
    }

    /// The route of an entry; nothing if there is none for it.
    pub(super) fn route(&self, entry: &mut Entry) -> Result<Option<usize>, String> {
        let mut failed = None;
        for (at, route) in self.routes.iter().enumerate() {
            let holds = match &route.when {
                None => true,
                Some(when) => when.holds(entry).unwrap_or_else(|error| {
                    failed = Some(format!("Running expression returned an error: {error}"));
                    false
                }),
            };
            if holds {
                super::put_all(&route.attributes, entry)?;
                return Ok(Some(at));
            }
        }
        failed.map_or(Ok(None), Err)
    }
}
