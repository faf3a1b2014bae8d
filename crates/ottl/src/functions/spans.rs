//! The functions of spans.

use corten_otlp::{Arena, Map, Value};

use super::Kind::ConstText;
use super::{Function, Got, Prepared, const_str, const_text, optional, param, plain};
use crate::item::{Item, Record};
use crate::program::Call;
use crate::value::Val;

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "IsRootSpan",
        params: &[],
        prepare: plain,
        run: |_, item| match &item.record {
            Record::Span(span) => Ok(Val::Bool(span.parent_span_id == [0; 8])),
            _ => Err("there is no span".into()),
        },
    },
    Function {
        name: "set_semconv_span_name",
        params: &[param("semconv_version", ConstText), optional("original_span_name_attribute", ConstText)],
        prepare: |args| {
            let version = const_str(args, 0).unwrap_or_default();
            let numbers: Option<Vec<u64>> =
                version.strip_prefix('v').unwrap_or(&version).split('.').map(|part| part.parse().ok()).collect();
            let numbers = match numbers.as_deref() {
                Some([major]) => [*major, 0, 0],
                Some([major, minor]) => [*major, *minor, 0],
                Some([major, minor, patch]) => [*major, *minor, *patch],
                _ => return Err((0, format!("{version:?} is no version"))),
            };
            if !([1, 37, 0]..=[1, 40, 0]).contains(&numbers) {
                return Err((0, format!("unsupported semconv version {version:?}: must be between 1.37.0 and 1.40.0")));
            }
            match const_text(args, 1) {
                Some(b"") => Err((1, "the name of an attribute cannot be empty".to_owned())),
                _ => Ok(Prepared::Nothing),
            }
        },
        run: set_name,
    },
];

fn set_name<'p>(call: &'p Call, item: &mut Item<'_>) -> Got<'p> {
    let Record::Span(span) = &mut item.record else { return Err("there is no span".into()) };
    let attributes = Attributes { arena: item.arena, map: span.attributes };
    let Some(name) = attributes.name(span.kind) else { return Ok(Val::Nil) };
    let old = span.name;
    if item.arena.bytes(old) == name.as_bytes() {
        return Ok(Val::Nil);
    }
    span.name = item.arena.own(name.as_bytes());
    if let Some(key) = call.const_text(1) {
        item.arena.put(&mut span.attributes, key, Value::Str(old));
    }
    Ok(Val::Nil)
}

struct Attributes<'a> {
    arena: &'a Arena,
    map: Map,
}

impl Attributes<'_> {
    /// The first of some attributes, as a text.
    fn first(&self, keys: &[&str]) -> Option<String> {
        keys.iter().find_map(|key| self.arena.get(self.map, key.as_bytes())).map(|value| self.arena.to_text(value))
    }

    fn is_true(&self, key: &str) -> bool {
        self.arena.get(self.map, key.as_bytes()) == Some(Value::Bool(true))
    }

    /// What the semantic conventions say that a span of a kind is called.
    fn name(&self, kind: i32) -> Option<String> {
        let name = match kind {
            2 => self.http("http.route").or_else(|| self.rpc()).or_else(|| self.messaging()),
            3 => {
                let of_rpc = || self.rpc();
                self.http("url.template").or_else(of_rpc).or_else(|| self.database()).or_else(|| self.messaging())
            }
            4 | 5 => self.messaging(),
            _ => None,
        };
        name.filter(|name| !name.is_empty())
    }

    fn http(&self, subject: &str) -> Option<String> {
        let method = self.first(&["http.request.method", "http.method"])?;
        let name = match self.first(&[subject]) {
            Some(subject) => format!("{method} {subject}"),
            None => method,
        };
        (!name.is_empty()).then_some(name)
    }

    fn rpc(&self) -> Option<String> {
        let system = self.first(&["rpc.system.name", "rpc.system"])?;
        let method = self.first(&["rpc.method", "rpc.grpc.method"]);
        let service = self.first(&["rpc.service", "rpc.grpc.service"]);
        let name = match (service, method) {
            (Some(service), Some(method)) => format!("{service}/{method}"),
            (None, Some(method)) => method,
            (Some(service), None) => format!("{service}/*"),
            (None, None) => system,
        };
        (!name.is_empty()).then_some(name)
    }

    fn database(&self) -> Option<String> {
        let system = self.first(&["db.system.name", "db.system"])?;
        let name = self.first(&["db.query.summary"]).unwrap_or_else(|| {
            let operation = self.first(&["db.operation.name", "db.operation"]).filter(|name| !name.is_empty());
            let target = self.database_target().filter(|name| !name.is_empty());
            match (operation, target) {
                (Some(operation), Some(target)) => format!("{operation} {target}"),
                (Some(name), None) | (None, Some(name)) => name,
                (None, None) => system,
            }
        });
        (!name.is_empty()).then_some(name)
    }

    fn database_target(&self) -> Option<String> {
        let namespace = self.first(&["db.namespace", "db.name"]).filter(|name| !name.is_empty());
        match (namespace, self.first(&["db.collection.name", "db.stored_procedure.name"])) {
            (Some(namespace), Some(within)) => Some(format!("{namespace}.{within}")),
            (Some(name), None) | (None, Some(name)) => Some(name),
            (None, None) => self.server(),
        }
    }

    fn server(&self) -> Option<String> {
        let address = self.first(&["server.address"])?;
        Some(match self.first(&["server.port"]) {
            Some(port) => format!("{address}:{port}"),
            None => address,
        })
    }

    fn messaging(&self) -> Option<String> {
        let system = self.first(&["messaging.system"])?;
        let operation = self.first(&["messaging.operation.name", "messaging.operation"]);
        let destination = if self.is_true("messaging.destination.temporary") {
            Some("(temporary)".to_owned())
        } else if self.is_true("messaging.destination.anonymous") {
            Some("(anonymous)".to_owned())
        } else {
            let named = ["messaging.destination.template", "messaging.destination.name", "messaging.destination"];
            self.first(&named).or_else(|| self.server())
        };
        let name = match (operation, destination.filter(|name| !name.is_empty())) {
            (Some(operation), Some(destination)) => format!("{operation} {destination}"),
            (None, Some(name)) | (Some(name), None) => name,
            (None, None) => system,
        };
        (!name.is_empty()).then_some(name)
    }
}
