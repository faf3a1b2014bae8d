//! Queries of GraphQL: what the reference answers, at the same place and with the same statuses.
//!
//! The schema has five types and will not grow by much. Measured, a library for that added 85 s of compilation, 1.4 MB to the
//! binary and code in assembly, and says something else of a faulty query than the reference does. So reading, checking and
//! answering are our own; what the reference answers to a recorded list of queries is a test.

mod check;
mod fault;
mod parse;
mod run;
mod schema;

use std::sync::Arc;
use std::time::Duration;

use corten_component::log::rfc3339;
use corten_config::encode;
use corten_net::{ServerBody, empty_body, full_body};
use corten_runtime::Controller;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde_json::{Map, Value as Json};

use self::fault::{Fault, VALIDATION, answer};
use self::run::{Component, Source, Wanted};
use crate::api::{mask_debug_info, mask_items};
use crate::encoding::{Coding, compressed};
use crate::metrics::BuildInfo;
use crate::web;

/// How long an operation may take, and the body of a request to arrive.
const OPERATION_WAIT: Duration = Duration::from_secs(10);
/// The most bytes of a request's body: a query, and the values of its variables.
const BODY_BYTES_MAX: usize = 64 << 10;

/// Where queries are answered, below the prefix of the web interface.
const PLACE: &str = "/graphql";
const PAGE: &str = include_str!("playground.html");
const SCRIPT: &str = include_str!("playground.js");
/// What the page may do: ask this server.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const JSON: &str = "application/json";
const RESPONSE_JSON: &str = "application/graphql-response+json";
const TEXT: &str = "text/plain; charset=utf-8";

type Answer = Response<ServerBody>;

/// Answers queries.
pub(crate) struct Queries {
    controller: Arc<Controller>,
    build: BuildInfo,
    /// Whether there is a page to try queries on.
    playground: bool,
}

/// What a request asks for.
#[derive(Debug, Default)]
struct Asked {
    query: String,
    operation: String,
    variables: Map<String, Json>,
}

impl Queries {
    pub(crate) fn new(controller: Arc<Controller>, build: BuildInfo, playground: bool) -> Self {
        Queries { controller, build, playground }
    }

    /// Whether a path below the prefix of the web interface is one of these.
    pub(crate) fn has(&self, path: &str) -> bool {
        path.strip_prefix(PLACE).is_some_and(|rest| match rest {
            "" => true,
            "/playground" | "/playground.js" => self.playground,
            _ => false,
        })
    }

    /// Answers a request to a path that [`has`](Self::has) knows.
    pub(crate) async fn answer(&self, path: &str, request: &Request<()>, body: Incoming) -> Answer {
        match path.strip_prefix(PLACE).unwrap_or_default() {
            "" => self.query(request, body).await,
            "/playground" => file(PAGE, "text/html; charset=utf-8"),
            _ => file(SCRIPT, "text/javascript; charset=utf-8"),
        }
    }

    async fn query(&self, request: &Request<()>, body: Incoming) -> Answer {
        let headers = request.headers();
        let upgrades = headers.get(header::UPGRADE).is_some_and(|value| !value.is_empty());
        let asked = match *request.method() {
            Method::OPTIONS => {
                let mut answer = Response::new(empty_body());
                answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("OPTIONS, GET, POST"));
                return answer;
            }
            Method::HEAD => {
                let mut answer = Response::new(empty_body());
                *answer.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
                return answer;
            }
            Method::GET if !upgrades => of_query(request.uri().query().unwrap_or_default()),
            Method::POST if !upgrades && is_json(headers) => {
                match tokio::time::timeout(OPERATION_WAIT, Limited::new(body, BODY_BYTES_MAX).collect()).await {
                    Ok(Ok(body)) => of_body(&body.to_bytes()),
                    Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                        let fault = Fault::new(format!("the request body has more than {BODY_BYTES_MAX} bytes"));
                        return told(StatusCode::PAYLOAD_TOO_LARGE, accepted(headers), &[fault], headers);
                    }
                    Ok(Err(error)) => Err(format!("could not read request body: {error}")),
                    Err(_) => Err("could not read request body: it did not come in time".to_owned()),
                }
            }
            _ => {
                let fault = Fault::new("transport not supported");
                return told(StatusCode::BAD_REQUEST, TEXT, &[fault], headers);
            }
        };
        let content_type = accepted(headers);
        let asked = match asked {
            Ok(asked) => asked,
            Err(error) => return told(StatusCode::BAD_REQUEST, content_type, &[Fault::new(error)], headers),
        };
        let answered = tokio::time::timeout(OPERATION_WAIT, answered(&asked, self)).await;
        match answered {
            Ok(Ok(text)) => respond(StatusCode::OK, content_type, text, headers),
            Ok(Err(faults)) => {
                let status = match content_type {
                    RESPONSE_JSON => StatusCode::BAD_REQUEST,
                    _ => StatusCode::UNPROCESSABLE_ENTITY,
                };
                told(status, content_type, &faults, headers)
            }
            // What Go calls it.
            Err(_) => told(StatusCode::OK, content_type, &[Fault::new("context deadline exceeded")], headers),
        }
    }
}

impl Source for Queries {
    fn alloy(&self, field: &str) -> Option<&str> {
        match field {
            "branch" => Some(self.build.branch),
            "buildDate" => Some(self.build.date),
            "buildUser" => Some(self.build.user),
            "revision" => Some(self.build.revision),
            "version" => Some(self.build.version),
            _ => None,
        }
    }

    fn is_ready(&self) -> bool {
        self.controller.is_loaded()
    }

    fn ids(&self) -> Vec<String> {
        self.controller.components().iter().map(|node| node.host.id.clone()).collect()
    }

    async fn component(&self, id: &str, wanted: Wanted) -> Option<Component> {
        let node = self.controller.component(id)?;
        let book = self.controller.secrets();
        let health = node.host.health.current();
        let mut component = Component {
            id: node.host.id.clone(),
            name: node.definition.name.to_owned(),
            message: book.redacted(&health.message),
            updated: rfc3339(health.updated),
            ..Component::default()
        };
        if wanted.arguments {
            component.arguments = encode::json(&mask_items(node.arguments().await, book));
        }
        if wanted.exports && !node.definition.exports.fields.is_empty() {
            component.exports = Some(encode::json(&mask_items(web::exports(&node), book)));
        }
        if wanted.debug_info {
            let info = node.host.debug_info.lock().clone();
            component.debug_info = info.map(|info| encode::json(&mask_debug_info(info.debug_info(), book)));
        }
        Some(component)
    }
}

/// The answer to what is asked for, or why it cannot be asked for.
async fn answered(asked: &Asked, source: &impl Source) -> Result<String, Vec<Fault>> {
    let document = parse::parse(&asked.query).map_err(|fault| vec![fault])?;
    if document.operations.is_empty() {
        return Err(vec![Fault::new("no operation provided").code(VALIDATION)]);
    }
    let faults = check::check(&document);
    if !faults.is_empty() {
        return Err(faults);
    }
    let operation = run::operation(&document, &asked.operation).map_err(|fault| vec![fault])?;
    let variables = run::variables(operation, &asked.variables).map_err(|fault| vec![fault])?;
    Ok(run::run(&document, operation, variables, source).await)
}

/// What the query of a URL asks for.
fn of_query(query: &str) -> Result<Asked, String> {
    let mut asked = Asked::default();
    let mut seen = Vec::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        // The first one of a name counts.
        if seen.contains(&name) {
            continue;
        }
        let object = || match &*value {
            "" => Ok(Map::new()),
            text => match first_value(text.as_bytes()) {
                Ok(Json::Object(object)) => Ok(object),
                Ok(Json::Null) => Ok(Map::new()),
                _ => Err(format!("{name} could not be decoded")),
            },
        };
        match &*name {
            "query" => asked.query = value.into_owned(),
            "operationName" => asked.operation = value.into_owned(),
            "variables" => asked.variables = object()?,
            "extensions" => _ = object()?,
            _ => continue,
        }
        seen.push(name);
    }
    Ok(asked)
}

/// What a body asks for.
fn of_body(body: &[u8]) -> Result<Asked, String> {
    let broken = |why: String| format!("json request body could not be decoded: {why}");
    let mut body = match first_value(body) {
        Ok(Json::Object(object)) => object,
        Ok(Json::Null) => Map::new(),
        Ok(_) => return Err(broken("it is no object".to_owned())),
        Err(error) => return Err(broken(error)),
    };
    let mut text = |name: &str| match body.remove(name) {
        None | Some(Json::Null) => Ok(String::new()),
        Some(Json::String(text)) => Ok(text),
        Some(_) => Err(broken(format!("{name} is no string"))),
    };
    let (query, operation) = (text("query")?, text("operationName")?);
    let mut object = |name: &str| match body.remove(name) {
        None | Some(Json::Null) => Ok(Map::new()),
        Some(Json::Object(object)) => Ok(object),
        Some(_) => Err(broken(format!("{name} is no object"))),
    };
    let variables = object("variables")?;
    object("extensions")?;
    Ok(Asked { query, operation, variables })
}

/// The JSON value at the beginning of a text; what follows is not read, as in the reference.
fn first_value(text: &[u8]) -> Result<Json, String> {
    match serde_json::Deserializer::from_slice(text).into_iter().next() {
        Some(value) => value.map_err(|error| error.to_string()),
        None => Err("EOF".to_owned()),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    content_type.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(JSON)
}

/// The content type of the answer: of what is accepted, the first that there is.
fn accepted(headers: &HeaderMap) -> &'static str {
    let Some(accept) =
        headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).filter(|text| !text.is_empty())
    else {
        return JSON;
    };
    let mut types =
        accept.split(',').map(|part| part.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    let found = types.find_map(|media| match media.as_str() {
        "*/*" | "application/*" | JSON => Some(JSON),
        RESPONSE_JSON => Some(RESPONSE_JSON),
        _ => None,
    });
    found.unwrap_or(RESPONSE_JSON)
}

fn told(status: StatusCode, content_type: &'static str, faults: &[Fault], headers: &HeaderMap) -> Answer {
    respond(status, content_type, answer(faults, "null"), headers)
}

fn respond(status: StatusCode, content_type: &'static str, text: String, accept: &HeaderMap) -> Answer {
    let (body, coding) = compressed(text.into_bytes(), Coding::accepted(accept));
    let mut response = Response::new(full_body(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, content_type),
        (header::VARY, "Accept, Accept-Encoding"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Some(coding) = coding {
        headers.insert(header::CONTENT_ENCODING, coding.name());
    }
    response
}

fn file(text: &'static str, content_type: &'static str) -> Answer {
    let mut response = Response::new(full_body(text));
    for (name, value) in [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests;
