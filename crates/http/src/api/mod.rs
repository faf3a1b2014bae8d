//! The program's own API, which the web interface and the command line read: JSON below `api/v0/corten/`.
//!
//! What it answers is described in `ui/src/api/types.ts`.

mod balance;
mod body;
mod bundle;
mod component;
mod config;
mod docs;
mod graph;
mod labels;
mod live;
mod stream;
mod tap;
mod targets;

use std::path::PathBuf;
use std::sync::Arc;

use corten_component::{SecretBook, Services};
use corten_net::{ServerBody, full_body};
use corten_runtime::Controller;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};

pub(crate) use self::body::{mask_debug_info, mask_items};
use self::component::Arrivals;
pub(crate) use self::live::Live;
use crate::encoding::{Coding, compressed};
use crate::reload::Reloader;
use crate::routes::Peer;

/// The most streams at a time: a page has one.
const STREAMS_MAX: usize = 64;
/// The most that look at data at a time.
const TAPS_MAX: usize = 8;
/// The longest query that is read.
const QUERY_BYTES_MAX: usize = 16 << 10;
/// A request that changes something carries this header, which a form on another site cannot send.
const OWN_HEADER: &str = "x-corten";

/// What is said where nobody may look at data. The text is the reference's.
pub(crate) const DISABLED: &str =
    "the live debugging service is disabled. Check the documentation to find out how to enable it";

pub(crate) type Answer = Response<ServerBody>;

/// Answers the requests.
pub(crate) struct Own {
    controller: Arc<Controller>,
    services: Arc<Services>,
    reloader: Reloader,
    live: Arc<Live>,
    peer: Peer,
    streams: Arc<Semaphore>,
    taps: Arc<Semaphore>,
    /// One search through targets at a time: it may take a while.
    searches: Arc<Semaphore>,
    stopped: watch::Receiver<bool>,
}

/// Why a request cannot be answered.
#[derive(Debug)]
pub(crate) struct Failure(StatusCode, String);

impl Failure {
    fn not_found(text: impl Into<String>) -> Self {
        Failure(StatusCode::NOT_FOUND, text.into())
    }

    fn bad(text: impl Into<String>) -> Self {
        Failure(StatusCode::BAD_REQUEST, text.into())
    }

    fn busy(text: impl Into<String>) -> Self {
        Failure(StatusCode::SERVICE_UNAVAILABLE, text.into())
    }
}

impl Own {
    pub(crate) fn new(
        controller: Arc<Controller>,
        services: Arc<Services>,
        reloader: Reloader,
        peer: Peer,
        stopped: watch::Receiver<bool>,
    ) -> Self {
        let live = Live::start(&controller, stopped.clone());
        Own {
            controller,
            services,
            reloader,
            live,
            peer,
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            taps: Arc::new(Semaphore::new(TAPS_MAX)),
            searches: Arc::new(Semaphore::new(1)),
            stopped,
        }
    }

    /// Answers a request whose path goes on like this.
    pub(crate) async fn answer(&self, rest: &str, request: &Request<()>) -> Answer {
        let headers = request.headers();
        let answer = match self.routed(rest, request).await {
            Ok(Told::Json(value)) => json_answer(StatusCode::OK, &value, headers),
            Ok(Told::Refused(value)) => json_answer(StatusCode::BAD_REQUEST, &value, headers),
            Ok(Told::Stream(answer)) => answer,
            Err(Failure(status, text)) => json_answer(status, &json!({ "error": text }), headers),
        };
        own_headers(answer)
    }

    async fn routed(&self, rest: &str, request: &Request<()>) -> Result<Told, Failure> {
        let query = Query::of(request.uri())?;
        let wanted = if rest == "reload" { Method::POST } else { Method::GET };
        let method = request.method();
        let allowed = *method == wanted || (wanted == Method::GET && *method == Method::HEAD);
        if !allowed {
            return Err(Failure(StatusCode::METHOD_NOT_ALLOWED, format!("only {wanted} is answered here")));
        }
        let value = match rest {
            "graph" => self.graph(),
            "balance" => balance::balance(&self.controller, query.get("all") == "true"),
            "config" => self.config(),
            "plan" => return self.plan().await,
            "reload" => return self.reload(request).await,
            "peers" => json!([{
                "name": self.peer.name, "addr": self.peer.address, "isSelf": true, "state": "participant",
            }]),
            "targets" => self.targets(&query).await?,
            "stream" => return self.stream(&query).map(Told::Stream),
            _ => {
                if let Some(rest) = rest.strip_prefix("components/") {
                    return self.component_at(rest).await.map(Told::Json);
                }
                if let Some(id) = rest.strip_prefix("tap/") {
                    return self.tap(id, &query, request.headers()).map(Told::Stream);
                }
                let Some(name) = rest.strip_prefix("docs/") else {
                    return Err(Failure::not_found("there is nothing here"));
                };
                docs::docs(self.controller.catalog(), name)
                    .ok_or_else(|| Failure::not_found(format!("there is no component of the name {name:?}")))?
            }
        };
        Ok(Told::Json(value))
    }

    async fn component_at(&self, rest: &str) -> Result<Value, Failure> {
        // An id may end like the name of a part: the whole comes first.
        if let Some(node) = self.controller.node(rest) {
            return Ok(self.component(&node, &Arrivals::of(&self.controller.nodes())).await);
        }
        let unknown = || Failure::not_found("component not found");
        let (id, part) = rest.rsplit_once('/').ok_or_else(unknown)?;
        let node = self.controller.node(id).ok_or_else(unknown)?;
        match part {
            "metrics" => Ok(component::metrics(&self.controller, &node)),
            "history" => Ok(self.live.history(&node.id)),
            _ => Err(unknown()),
        }
    }

    /// What must not be shown.
    fn secrets(&self) -> &SecretBook {
        self.controller.secrets()
    }

    /// Where the configuration is.
    fn config_path(&self) -> &PathBuf {
        self.reloader.path()
    }

    /// The streams of the reference's API. `rest` follows `api/v0/web/`.
    pub(crate) fn reference_stream(&self, rest: &str, uri: &Uri) -> Option<Answer> {
        if let Some(id) = rest.strip_prefix("debug/") {
            return Some(self.reference_debug(id, uri));
        }
        let module = rest.strip_prefix("graph").filter(|rest| rest.is_empty() || rest.starts_with('/'))?;
        Some(self.reference_graph(module.trim_start_matches('/'), uri))
    }
}

/// What a request is answered with.
enum Told {
    Json(Value),
    /// With status 400.
    Refused(Value),
    Stream(Answer),
}

/// The query of a request.
struct Query(Vec<(String, String)>);

impl Query {
    fn of(uri: &Uri) -> Result<Self, Failure> {
        let query = uri.query().unwrap_or_default();
        if query.len() > QUERY_BYTES_MAX {
            return Err(Failure::bad("the query is too long"));
        }
        let pairs = url::form_urlencoded::parse(query.as_bytes());
        Ok(Query(pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect()))
    }

    /// The first value of that name; empty where there is none.
    fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// A number of that name, or what stands for it.
    fn number<T: std::str::FromStr>(&self, name: &str, otherwise: T) -> Result<T, Failure> {
        match self.get(name) {
            "" => Ok(otherwise),
            text => text.parse().map_err(|_| Failure::bad(format!("{name} is no number"))),
        }
    }
}

/// Whether a request that changes something comes from a page of this server, or from no page at all.
fn check_origin(request: &Request<()>) -> Result<(), Failure> {
    let headers = request.headers();
    let refused = |text: &str| Failure(StatusCode::FORBIDDEN, text.to_owned());
    let mut own = headers.get_all(OWN_HEADER).iter();
    if own.next().is_none_or(|value| value != "1") || own.next().is_some() {
        return Err(refused("the header X-Corten: 1 is missing"));
    }
    // What is said twice may be read in two ways: all of it has to be the same.
    let authority = request.uri().authority().map(|authority| Some(authority.as_str()));
    let hosts = headers.get_all(header::HOST).iter().map(|host| host.to_str().ok());
    let hosts: Vec<Option<&str>> = authority.into_iter().chain(hosts).collect();
    let of_this_host = |origin: &HeaderValue| {
        let origin = origin.to_str().ok().and_then(|origin| Some(origin.split_once("://")?.1));
        let is = |host: &Option<&str>| matches!((origin, host), (Some(a), Some(b)) if a.eq_ignore_ascii_case(b));
        !hosts.is_empty() && hosts.iter().all(is)
    };
    match headers.get_all(header::ORIGIN).iter().all(of_this_host) {
        true => Ok(()),
        false => Err(refused("the request comes from another site")),
    }
}

fn json_answer(status: StatusCode, value: &Value, headers: &HeaderMap) -> Answer {
    let (body, coding) = compressed(value.to_string().into_bytes(), Coding::accepted(headers));
    let mut answer = Response::new(full_body(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST"));
    }
    if let Some(coding) = coding {
        headers.insert(header::CONTENT_ENCODING, coding.name());
    }
    answer
}

/// What a request is told that may not ask.
pub(crate) fn refused(why: &str, headers: &HeaderMap) -> Answer {
    own_headers(json_answer(StatusCode::FORBIDDEN, &json!({ "error": why }), headers))
}

fn own_headers(mut answer: Answer) -> Answer {
    let headers = answer.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// A time in milliseconds since the Unix epoch.
fn millis(at: std::time::SystemTime) -> i64 {
    let since = at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_taken_from_no_other_site() {
        for (own, origin, host, fine) in [
            (Some("1"), None, "h:1", true),
            (Some("1"), Some("http://h:1"), "h:1", true),
            (Some("1"), Some("https://H:1"), "h:1", true),
            (None, None, "h:1", false),
            (Some("0"), None, "h:1", false),
            (Some("1"), Some("http://evil"), "h:1", false),
            (Some("1"), Some("http://h:1.evil"), "h:1", false),
            (Some("1"), Some("null"), "h:1", false),
            (Some("1"), Some(""), "h:1", false),
        ] {
            let mut request = Request::post("/reload").header("host", host);
            for (name, value) in [("x-corten", own), ("origin", origin)] {
                if let Some(value) = value {
                    request = request.header(name, value);
                }
            }
            let request = request.body(()).unwrap();
            assert_eq!(check_origin(&request).is_ok(), fine, "{own:?} {origin:?}");
        }
        // What is said twice counts only if it is the same.
        for (uri, name, value, fine) in [
            ("/reload", "host", "h:1", true),
            ("/reload", "host", "evil", false),
            ("/reload", "origin", "http://evil", false),
            ("/reload", "x-corten", "2", false),
            ("http://h:1/reload", "y", "z", true),
            ("http://evil/reload", "y", "z", false),
        ] {
            let request =
                Request::post(uri).header("host", "h:1").header("origin", "http://h:1").header("x-corten", "1");
            let request = request.header(name, value).body(()).unwrap();
            assert_eq!(check_origin(&request).is_ok(), fine, "{uri} {name} {value}");
        }
    }

    #[test]
    fn a_query_is_read_within_limits() {
        let query = Query::of(&"/?a=1&b=x%20y+z&a=2".parse().unwrap()).unwrap();
        assert_eq!((query.get("a"), query.get("b"), query.get("c")), ("1", "x y z", ""));
        assert_eq!(query.number("a", 5).unwrap(), 1);
        assert_eq!(query.number("c", 5).unwrap(), 5);
        assert!(query.number::<u32>("b", 5).is_err());
        let long: Uri = format!("/?{}", "x".repeat(QUERY_BYTES_MAX + 1)).parse().unwrap();
        assert!(Query::of(&long).is_err());
    }
}
