//! The routes of the API.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use corten_component::metrics::Snapshot;
use corten_component::trace::Tracer;
use corten_component::{HealthState, Logger, Services};
use corten_net::{BasicAuthFilter, ServerBody, empty_body, full_body, http_error};
use corten_runtime::{Controller, LoadedBy};
use corten_syntax::quote;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use hyper::body::Incoming;
use tokio::sync::watch;

use crate::api::{self, Own};
use crate::assets::Assets;
use crate::encoding::{Coding, MetricFormat, compressed};
use crate::graphql::Queries;
use crate::hosts::Hosts;
use crate::reload::Reloader;
use crate::server::ServerOptions;
use crate::support::{self, Bundles};
use crate::{path, web};

/// Where the program's own API is, below the prefix of the web interface.
const OWN: &str = "/api/v0/corten/";
/// Where components serve.
const COMPONENTS: &str = "/api/v0/component/";
/// Where the peers of a cluster talk to each other.
const PEERS: &str = "/api/v1/ckit/transport/";

/// A process among its peers.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its name, which no other peer has.
    pub name: String,
    /// The address by which others reach it.
    pub address: String,
}

/// Answers the requests of the API.
pub(crate) struct Api {
    controller: Arc<Controller>,
    auth: Arc<ArcSwapOption<BasicAuthFilter>>,
    gather: Arc<dyn Fn() -> Snapshot + Send + Sync>,
    reloader: Reloader,
    /// What the paths of the web interface begin with: see [`path::normal_prefix`].
    prefix: String,
    assets: Assets,
    own: Arc<Own>,
    bundles: Arc<Bundles>,
    queries: Option<Queries>,
    peer: Peer,
    logger: Logger,
    tracer: Tracer,
}

/// What requests to the same place have in common, for their spans.
fn route(path: &str) -> &str {
    match path {
        "/-/ready" | "/-/healthy" | "/-/reload" | "/-/support" | "/metrics" => path,
        _ if path.starts_with(COMPONENTS) => COMPONENTS,
        _ => "/",
    }
}

type Answer = Response<ServerBody>;

impl Api {
    pub(crate) fn new(
        controller: Arc<Controller>,
        services: &Arc<Services>,
        reloader: Reloader,
        options: ServerOptions,
        stopped: watch::Receiver<bool>,
    ) -> Self {
        let prefix = path::normal_prefix(&options.ui_path_prefix);
        let (shared, peer) = (Arc::clone(services), options.peer.clone());
        let bundles = Bundles::new(support::Parts {
            flags: options.support_bundle,
            build: options.build,
            controller: Arc::clone(&controller),
            gather: Arc::clone(&services.gather),
            book: Arc::clone(&services.server.secrets),
            sink: Arc::clone(options.logger.sink()),
            peer: peer.clone(),
            stopped: stopped.clone(),
        });
        let queries =
            options.graphql.map(|graphql| Queries::new(Arc::clone(&controller), options.build, graphql.playground));
        Api {
            bundles: Arc::new(bundles),
            queries,
            own: Arc::new(Own::new(Arc::clone(&controller), shared, reloader.clone(), peer, stopped)),
            assets: Assets::below(&prefix),
            prefix,
            controller,
            auth: Arc::clone(&services.server.auth),
            gather: Arc::clone(&services.gather),
            reloader,
            peer: options.peer,
            logger: options.logger,
            tracer: services.tracer.clone(),
        }
    }

    /// Answers a request. Where there are `hosts`, one that shows or changes the inside has to be for one of them.
    pub(crate) async fn answer(&self, request: Request<Incoming>, hosts: Option<&Hosts>) -> Answer {
        let (parts, body) = request.into_parts();
        let mut span = self.tracer.served(&format!("{} {}", parts.method, route(parts.uri.path())), &parts.headers);
        span.text("http.request.method", parts.method.as_str());
        span.text("url.path", parts.uri.path());
        let answer = self.routed(Request::from_parts(parts, ()), body, hosts).await;
        let status = answer.status();
        span.int("http.response.status_code", i64::from(status.as_u16()));
        if status.is_server_error() {
            span.fail(status);
        }
        answer
    }

    async fn routed(&self, request: Request<()>, body: Incoming, hosts: Option<&Hosts>) -> Answer {
        if request.method() == Method::CONNECT {
            // Whoever were answered with success would take this for a tunnel.
            return not_found();
        }
        // The same text decides about authentication and about the route, so that no spelling of a path passes one and
        // means another to the other.
        let Some(path) = path::decode(request.uri().path()) else {
            return http_error(StatusCode::BAD_REQUEST, "400 Bad Request");
        };
        let filter = self.auth.load_full();
        if let Some(filter) = &filter
            && let Err(refusal) = filter.check(&path, request.headers())
        {
            self.logger
                .info("failed to authenticate request", &[("path", (&path).into()), ("err", "unauthorized".into())]);
            return *refusal;
        }
        // No browser gives a page of another site the password that it knows for this one.
        if let Some(hosts) = hosts
            && !filter.is_some_and(|filter| filter.guards(&path))
            && self.is_inside(&path)
            && let Err(why) = hosts.check(request.uri(), request.headers())
        {
            return api::refused(&why, request.headers());
        }
        match path.as_str() {
            "/-/ready" => self.ready(),
            "/-/healthy" => self.healthy(),
            "/-/reload" if matches!(*request.method(), Method::GET | Method::POST) => self.reload().await,
            "/-/support" if *request.method() == Method::GET => self.bundles.answer(&self.own, request.uri()).await,
            "/metrics" => self.metrics(request.headers()),
            path => {
                if let Some(rest) = path.strip_prefix(COMPONENTS) {
                    return self.component(path, rest, request).await;
                }
                if path.starts_with(PEERS) {
                    return http_error(StatusCode::NOT_FOUND, "clustering is disabled");
                }
                match path.strip_prefix(&*self.prefix).filter(|rest| rest.is_empty() || rest.starts_with('/')) {
                    Some("") if !self.prefix.is_empty() => redirect(&format!("{}/", path::encode(&self.prefix))),
                    Some(rest) => self.below_prefix(rest, &request, body).await,
                    None => not_found(),
                }
            }
        }
    }

    /// Whether a path leads to what goes on inside. What the reference tells everybody is not meant: whether the program is
    /// ready, its metrics, and a reload, which reads the same files again.
    fn is_inside(&self, path: &str) -> bool {
        let below = path.strip_prefix(&*self.prefix).unwrap_or_default();
        path == "/-/support"
            || [path, below].iter().any(|path| {
                path.starts_with("/graphql") || (path.starts_with("/api/v0/") && !path.starts_with(COMPONENTS))
            })
    }

    /// Answers what lies below the prefix of the web interface: its pages, and what it reads.
    async fn below_prefix(&self, rest: &str, request: &Request<()>, body: Incoming) -> Answer {
        if let Some(rest) = rest.strip_prefix(OWN) {
            return self.own.answer(rest, request).await;
        }
        if let Some(rest) = rest.strip_prefix("/api/v0/web/") {
            return self.web(rest, request).await;
        }
        if let Some(queries) = self.queries.as_ref().filter(|queries| queries.has(rest)) {
            return queries.answer(rest, request, body).await;
        }
        // Whoever asks for an API or for profiles is better told that there is none than given a page.
        let page = !(rest.starts_with("/api/") || rest.starts_with("/debug/pprof/"));
        let page = page.then(|| self.assets.answer(rest, request.headers())).flatten();
        page.unwrap_or_else(not_found)
    }

    fn ready(&self) -> Answer {
        match self.controller.is_loaded() {
            true => text(StatusCode::OK, "Alloy is ready.\n"),
            false => text(StatusCode::SERVICE_UNAVAILABLE, "Alloy is not ready.\n"),
        }
    }

    fn healthy(&self) -> Answer {
        let unhealthy = |state| state == HealthState::Unhealthy;
        let nodes = self.controller.components();
        let nodes = nodes.iter().filter(|node| unhealthy(node.host.health.current().state));
        let names: Vec<&str> = nodes.map(|node| node.definition.name).collect();
        if names.is_empty() {
            return text(StatusCode::OK, "All Alloy components are healthy.\n");
        }
        http_error(StatusCode::INTERNAL_SERVER_ERROR, &format!("unhealthy components: {}", names.join(", ")))
    }

    async fn reload(&self) -> Answer {
        self.logger.info("reload requested via /-/reload endpoint", &[]);
        match self.reloader.reload(LoadedBy::Request).await {
            Ok(()) => text(StatusCode::OK, "config reloaded\n"),
            Err(refusal) => http_error(StatusCode::BAD_REQUEST, &refusal.text),
        }
    }

    fn metrics(&self, headers: &HeaderMap) -> Answer {
        let format = MetricFormat::accepted(headers);
        let snapshot = (self.gather)();
        let body = match format {
            MetricFormat::Text => snapshot.to_text(),
            MetricFormat::OpenMetrics(_) => snapshot.to_open_metrics(),
        };
        // Scrapers know this one coding.
        let coding = Coding::accepted(headers).filter(|coding| *coding == Coding::Gzip);
        whole(body, format.content_type(), coding)
    }

    /// Hands a request to the component whose id its path begins with.
    async fn component(&self, path: &str, rest: &str, mut request: Request<()>) -> Answer {
        let Some((node, below)) = self.controller.component_at(rest.trim_start_matches('/')) else {
            let body = format!("failed to parse URL path {}: invalid path\n", quote(path));
            return text(StatusCode::BAD_REQUEST, body);
        };
        let handler = node.host.handler.lock().clone();
        let Some(handler) = handler else {
            let mut response = Response::new(empty_body());
            *response.status_mut() = StatusCode::NOT_FOUND;
            return response;
        };
        let Some(uri) = below_uri(below, request.uri().query()) else {
            return http_error(StatusCode::BAD_REQUEST, "400 Bad Request");
        };
        *request.uri_mut() = uri;
        handler.handle(request).await.map(full_body)
    }

    async fn web(&self, rest: &str, request: &Request<()>) -> Answer {
        if let Some(answer) = self.own.reference_stream(rest, request.uri()) {
            return answer;
        }
        let json = match rest {
            // Nothing was configured from afar, so that there is nothing of that.
            "remotecfg/components" => "[]".to_owned(),
            "components" => web::list(&self.controller),
            "peers" => web::peers(&self.peer),
            _ => {
                let module = rest.strip_prefix("remotecfg/").unwrap_or(rest).strip_prefix("modules/");
                if let Some(id) = rest.strip_prefix("components/") {
                    match web::details(&self.controller, id).await {
                        Some(json) => json,
                        None => return not_found(),
                    }
                } else if module.and_then(|rest| rest.strip_suffix("/components")).is_some() {
                    // There are no modules.
                    return http_error(StatusCode::INTERNAL_SERVER_ERROR, "module not found");
                } else {
                    return not_found();
                }
            }
        };
        whole(json, HeaderValue::from_static("application/json"), Coding::accepted(request.headers()))
    }
}

/// The path and query that a component sees.
fn below_uri(below: &str, query: Option<&str>) -> Option<Uri> {
    let mut text = path::encode(if below.is_empty() { "/" } else { below });
    if let Some(query) = query {
        text.push('?');
        text.push_str(query);
    }
    PathAndQuery::try_from(text).ok().map(Uri::from)
}

fn not_found() -> Answer {
    http_error(StatusCode::NOT_FOUND, "404 page not found")
}

fn redirect(place: &str) -> Answer {
    let Ok(place) = HeaderValue::from_str(place) else { return not_found() };
    let mut response = Response::new(empty_body());
    *response.status_mut() = StatusCode::FOUND;
    response.headers_mut().insert(header::LOCATION, place);
    response
}

/// A response of plain text.
fn text(status: StatusCode, body: impl Into<String>) -> Answer {
    let mut response = Response::new(full_body(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// A response with a body that is compressed if that is accepted and worth it.
fn whole(body: String, content_type: HeaderValue, coding: Option<Coding>) -> Answer {
    let (body, coding) = compressed(body.into_bytes(), coding);
    let mut response = Response::new(full_body(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if let Some(coding) = coding {
        headers.insert(header::CONTENT_ENCODING, coding.name());
    }
    response
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_component_sees_what_follows_its_id() {
        let uri = |below, query| below_uri(below, query).map(|uri| uri.to_string());
        assert_eq!(uri("", None).as_deref(), Some("/"));
        assert_eq!(uri("/metrics", Some("a=b%20c")).as_deref(), Some("/metrics?a=b%20c"));
        assert_eq!(uri("/a b/é?#", None).as_deref(), Some("/a%20b/%C3%A9%3F%23"));
    }

    proptest! {
        #[test]
        fn every_decoded_path_can_be_handed_on(below in any::<String>()) {
            let below = format!("/{below}");
            let uri = below_uri(&below, None).unwrap();
            prop_assert_eq!(path::decode(uri.path()), Some(below));
        }
    }
}
