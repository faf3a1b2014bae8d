//! `discovery.http`: targets that an HTTP service lists.

use std::time::Duration;

use ::http::header::{ACCEPT, CONTENT_TYPE};
use ::http::{HeaderValue, Method, Request, StatusCode};
use corten_component::metrics::Counter;
use corten_component::{Component, Context, Error, Url};
use corten_config::{Arguments, CheckErrors};
use corten_net::{Body, Client, ClientConfig, ClientOptions, status_text};
use corten_signal::target::Target;

use crate::poll::{Discoverer, Found, Poll};
use crate::{Offer, groups};

/// The label with the address of the service that listed a target.
const URL: &str = "__meta_url";

/// The largest list that is read, in bytes.
const BODY_BYTES_MAX: usize = 64 << 20;

/// Exports the targets that an HTTP service lists.
///
/// The service answers `200` with a list of groups, `[{"targets": ["host:1"], "labels": {"job": "x"}}]`, and the content
/// type `application/json`. Each target gets the label `__meta_url`, which does not hold user and password, and is
/// `(secret)` if the address was made from a secret. Whatever else the service answers, or if it does not, the targets
/// stay as they are. A list may have up to 64 MiB and a million targets. A request may take as long as
/// `refresh_interval`.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct Config {
    /// The address of the list, `http://…` or `https://…`.
    url: Url,
    /// How often to ask.
    #[arg(default = "60s")]
    refresh_interval: Duration,
    /// How to connect.
    #[flatten]
    client: ClientConfig,
}

impl Config {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        let holds = !self.refresh_interval.is_zero();
        errors.require(holds, &["refresh_interval"], "refresh_interval must be greater than 0");
        // The reference finds it out with every request. An address that is not there, as from a variable of the
        // environment that is not set, is not refused: the rest of the configuration may well do without.
        if let Err(error) = self.url.to_uri()
            && !self.url.is_empty()
        {
            let is_scheme = error.starts_with("unsupported protocol scheme");
            errors.push(&["url"], if is_scheme { "URL scheme must be 'http' or 'https'".to_owned() } else { error });
        }
        errors.into_result()
    }
}

/// The component.
#[derive(Debug)]
pub struct Http {
    poll: Poll<Self>,
    /// The client, and what it was made of: connections and tokens are kept while that stays the same.
    client: (ClientConfig, Client),
}

impl Component for Http {
    const NAME: &'static str = "discovery.http";
    type Arguments = Config;
    type Exports = Offer;
    type Prepared = (Config, Client);

    async fn prepare(
        config: Config,
        cx: &Context<Self>,
        current: Option<&Self>,
    ) -> Result<((Config, Client), Offer), Error> {
        let kept = current.filter(|current| current.client.0 == config.client).map(|current| current.client.1.clone());
        let client = match kept {
            Some(client) => client,
            None => {
                // The services that list targets for Prometheus know it by its name.
                let user_agent = format!("Prometheus/{}", cx.services().version);
                let user_agent = HeaderValue::try_from(user_agent).map_err(|error| error.to_string())?;
                let observe = cx.observe_requests();
                let options = ClientOptions { user_agent, observe, ..ClientOptions::default() };
                Client::new(config.client.clone(), options).await.map_err(|error| error.to_string())?
            }
        };
        Ok(((config, client), Poll::offer(current.map(|current| &current.poll))))
    }

    fn commit(current: Option<Self>, (config, client): (Config, Client), cx: &Context<Self>) -> Self {
        let every = config.refresh_interval;
        let name = "prometheus_sd_http_failures_total";
        let failures = cx.metrics().counter(name, "Number of HTTP service discovery refresh failures.");
        let kept = (config.client.clone(), client.clone());
        let asker = Asker { config, client, failures };
        Http { poll: Poll::start(current.map(|current| current.poll), cx, every, move || asker.clone()), client: kept }
    }

    async fn drain(self, _: &Context<Self>) {
        self.poll.stop().await;
    }
}

/// Asks the service.
#[derive(Clone)]
struct Asker {
    config: Config,
    client: Client,
    failures: Counter,
}

impl Discoverer for Asker {
    const MECHANISM: Option<&'static str> = Some("http");

    async fn refresh(&mut self) -> Result<Found, String> {
        let limit = self.config.refresh_interval;
        let outcome = tokio::time::timeout(limit, self.ask()).await;
        let outcome = outcome.unwrap_or_else(|_| Err(format!("no answer from {} within {limit:?}", self.config.url)));
        match outcome {
            Ok(targets) => {
                // The whole list is one source: what is not on it any more is gone.
                let source = self.config.url.expose().to_owned();
                Ok(Found { groups: [(source, Some(targets))].into(), problem: None })
            }
            Err(error) => {
                self.failures.inc();
                Err(error)
            }
        }
    }
}

impl Asker {
    async fn ask(&self) -> Result<Vec<Target>, String> {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = self.config.url.to_uri()?;
        let seconds = self.config.refresh_interval.as_secs_f64().to_string();
        let seconds = HeaderValue::try_from(seconds).map_err(|error| error.to_string())?;
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        request.headers_mut().insert("x-prometheus-refresh-interval-seconds", seconds);

        let response = self.client.request(request).await.map_err(|error| self.config.url.in_error(&error))?;
        if response.status() != StatusCode::OK {
            return Err(format!("server returned HTTP status {}", status_text(response.status())));
        }
        let content_type = response.headers().get(CONTENT_TYPE).map_or("", |value| value.to_str().unwrap_or("?"));
        if !is_json(content_type) {
            return Err(format!("unsupported content type {content_type:?}"));
        }
        let body = response.into_body().read(BODY_BYTES_MAX).await.map_err(|error| error.to_string())?;
        let meta = self.config.url.for_label();
        // A long list takes a while.
        let parse = move || groups::from_json(&body).and_then(|groups| groups::targets(&groups, (URL, &meta)));
        tokio::task::spawn_blocking(parse).await.map_err(|error| error.to_string())?
    }
}

/// Whether a content type is `application/json`, with or without its one encoding.
fn is_json(content_type: &str) -> bool {
    let content_type = content_type.trim().to_ascii_lowercase();
    let Some(rest) = content_type.strip_prefix("application/json") else { return false };
    let charset = rest.strip_prefix(';').map(str::trim_start);
    rest.is_empty() || matches!(charset, Some("charset=utf-8" | "charset=\"utf-8\""))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use corten_component::Definition;
    use corten_testkit::{Server, Unit, World, answer, host, labels, until};
    use parking_lot::Mutex;

    use super::*;

    const DEFINITION: Definition = Definition::of::<Http>();

    const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

    /// Status, headers and body of the next answers.
    type Answer = (u16, &'static [(&'static str, &'static str)], &'static str);

    /// A service whose answer can be changed.
    async fn service(first: Answer) -> (Server, Arc<Mutex<Answer>>) {
        let next = Arc::new(Mutex::new(first));
        let answers = Arc::clone(&next);
        let server = Server::start(move |_| {
            let (status, headers, body) = *answers.lock();
            answer(status, headers, body)
        });
        (server.await, next)
    }

    fn found(world: &World) -> Vec<String> {
        let exports = world.exports();
        let targets = exports.last().and_then(|exports| exports.field("targets"));
        targets.map_or_else(Vec::new, |targets| labels(&targets))
    }

    async fn start(world: &World, body: &str) -> Unit {
        Unit::start(world.clone(), &DEFINITION, body).await.unwrap()
    }

    #[tokio::test]
    async fn the_service_is_asked_as_prometheus_asks() {
        let list = r#"[{"targets": ["a:1", "a:2"], "labels": {"job": "x"}}, {"targets": ["b:1"]}]"#;
        let (server, _) = service((200, JSON, list)).await;
        let world = host("discovery.http.x");
        let url = server.url("/sd?a=b");
        let _unit = start(&world, &format!("url = {url:?}\nrefresh_interval = \"90s\"")).await;
        let expected = [
            format!("__address__=a:1 __meta_url={url} job=x"),
            format!("__address__=a:2 __meta_url={url} job=x"),
            format!("__address__=b:1 __meta_url={url}"),
        ];
        until("all are found", || found(&world) == expected).await;
        let seen = &server.seen()[0];
        assert_eq!((seen.method.as_str(), seen.target.as_str()), ("GET", "/sd?a=b"));
        assert_eq!(seen.header("accept"), "application/json");
        assert_eq!(seen.header("x-prometheus-refresh-interval-seconds"), "90");
        assert_eq!(seen.header("user-agent"), "Prometheus/v0.0.0");
        let labels = [("mechanism", "http"), ("config", "")];
        assert_eq!(world.metrics().get("prometheus_sd_refresh_duration_seconds", &labels), Some(1.0));
        assert_eq!(world.metric("prometheus_sd_http_failures_total"), Some(0.0));
    }

    #[tokio::test]
    async fn what_is_no_list_keeps_the_targets() {
        for (next, error) in [
            ((500, JSON, "[]"), "server returned HTTP status 500 Internal Server Error"),
            ((599, JSON, "[]"), "server returned HTTP status 599"),
            ((204, JSON, ""), "server returned HTTP status 204 No Content"),
            ((200, &[("content-type", "text/html")], "[]"), "unsupported content type \"text/html\""),
            ((200, &[], "[]"), "unsupported content type \"\""),
            ((200, JSON, "[null]"), "nil target group item found"),
            ((200, JSON, "[{\"targets\": [\"a\"], \"more\": 1}]"), "unknown field \"more\""),
        ] as [(Answer, &str); 7]
        {
            let (server, answers) = service((200, JSON, "[{\"targets\": [\"a\"]}]")).await;
            let world = host("discovery.http.x");
            let _unit = start(&world, &format!("url = {:?}\nrefresh_interval = \"50ms\"", server.url("/"))).await;
            until("a target is found", || found(&world).len() == 1).await;
            *answers.lock() = next;
            until("it is unhealthy", || world.health_text().contains(error)).await;
            assert_eq!(found(&world).len(), 1, "{error}");
            assert!(world.metric("prometheus_sd_http_failures_total") >= Some(1.0));
            let labels = [("mechanism", "http"), ("config", "")];
            assert!(world.metrics().get("prometheus_sd_refresh_failures_total", &labels) >= Some(1.0));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_list_clears() {
        let (server, answers) = service((200, JSON, "[{\"targets\": [\"a\"]}]")).await;
        let world = host("discovery.http.x");
        let _unit = start(&world, &format!("url = {:?}", server.url("/"))).await;
        until("a target is found", || found(&world).len() == 1).await;
        *answers.lock() = (200, &[("content-type", "Application/JSON; charset=\"UTF-8\"")], "[]");
        until("none is found", || found(&world).is_empty()).await;
    }

    #[test]
    fn content_types_are_those_of_json() {
        for (text, is) in [
            ("application/json", true),
            (" application/JSON ", true),
            ("application/json; charset=utf-8", true),
            ("application/json;charset=\"UTF-8\"", true),
            ("application/json; charset=latin1", false),
            ("application/jsonp", false),
            ("application/json;", false),
            ("text/json", false),
        ] {
            assert_eq!(is_json(text), is, "{text}");
        }
    }

    #[tokio::test]
    async fn the_password_is_sent_and_not_shown() {
        let (server, _) = service((200, JSON, "[{\"targets\": [\"a\"]}]")).await;
        let world = host("discovery.http.x");
        let url = server.url("/").replace("http://", "http://user:hunter2@");
        let unit = start(&world, &format!("url = {url:?}")).await;
        until("a target is found", || found(&world).len() == 1).await;
        assert_eq!(found(&world), [format!("__address__=a __meta_url={}", server.url("/"))]);
        assert_eq!(server.seen()[0].header("authorization"), "Basic dXNlcjpodW50ZXIy");
        assert!(!format!("{:?}", unit.shown_arguments()).contains("hunter2"));
    }

    #[tokio::test]
    async fn the_client_is_configured_beside_the_url() {
        let (server, _) = service((200, JSON, "[{\"targets\": [\"a\"]}]")).await;
        let world = host("discovery.http.x");
        let text = format!(
            "url = {:?}\nhttp_headers = {{ \"X-Tenant\" = [\"t\"] }}\nbasic_auth {{\nusername = \"u\"\npassword = \"p\"\n}}",
            server.url("/")
        );
        let _unit = start(&world, &text).await;
        until("it was asked", || !server.seen().is_empty()).await;
        assert_eq!(server.seen()[0].header("x-tenant"), "t");
        assert_eq!(server.seen()[0].header("authorization"), "Basic dTpw");
        for (more, error) in [
            ("bearer_token = \"a\"\nbasic_auth { }", "at most one of basic_auth, authorization, oauth2"),
            ("refresh_interval = \"0s\"", "refresh_interval must be greater than 0"),
            ("tls_config {\nca_pem = \"nonsense\"\n}", "unable to use specified CA cert inline"),
        ] {
            let text = format!("url = \"http://localhost\"\n{more}");
            let refused = Unit::start(host("discovery.http.x"), &DEFINITION, &text).await.unwrap_err();
            assert!(refused.contains(error), "{more}: {refused}");
        }
    }

    #[tokio::test]
    async fn a_service_that_cannot_be_reached_is_no_reason_to_refuse_the_load() {
        // Nobody listens there any more.
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for (url, error) in [
            (format!("http://{address}/"), "connection refused"),
            // What a variable of the environment gives that is not set.
            (String::new(), "unsupported protocol scheme \"\""),
        ] {
            let world = host("discovery.http.x");
            let _unit = start(&world, &format!("url = {url:?}\nrefresh_interval = \"1s\"")).await;
            until("it is unhealthy", || world.health_text().contains(error)).await;
        }
    }

    #[tokio::test]
    async fn an_address_that_leads_nowhere_is_refused() {
        for (url, error) in [
            ("host/sd", "URL scheme must be 'http' or 'https'"),
            ("localhost:9009/sd", "URL scheme must be 'http' or 'https'"),
            ("127.0.0.1:9009/sd", "URL scheme must be 'http' or 'https'"),
            ("//host/sd", "URL scheme must be 'http' or 'https'"),
            ("ftp://host/", "URL scheme must be 'http' or 'https'"),
            ("file:///etc/sd.json", "URL scheme must be 'http' or 'https'"),
            ("http://", "invalid url: empty host"),
            ("http://host:port/", "invalid url: invalid port number"),
        ] {
            let text = format!("url = {url:?}");
            let refused = Unit::start(host("discovery.http.x"), &DEFINITION, &text).await.unwrap_err();
            assert!(refused.ends_with(error), "{url}: {refused}");
        }
    }

    #[tokio::test]
    async fn what_of_the_address_was_made_from_a_secret_is_shown_nowhere() {
        let (server, answers) = service((200, JSON, "[{\"targets\": [\"a\"]}]")).await;
        let world = host("discovery.http.x");
        let names = [("found", corten_config::Value::string(server.url("/hunter2?t=hunter2")).marked(true))];
        let text = "url = found\nrefresh_interval = \"50ms\"";
        let unit = Unit::start_with(world.clone(), &DEFINITION, text, &names).await.unwrap();
        until("a target is found", || found(&world).len() == 1).await;
        assert_eq!(found(&world), ["__address__=a __meta_url=(secret)"]);
        assert_eq!(server.seen()[0].target, "/hunter2?t=hunter2");
        answers.lock().0 = 500;
        until("it is unhealthy", || world.health_text().contains("500")).await;
        drop(server);
        until("nobody is there", || world.health_text().contains("Get \"(secret)\": ")).await;
        let shown = format!("{} {} {:?}", world.health_text(), world.logs(), unit.shown_arguments());
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[tokio::test]
    async fn a_service_that_hangs_is_given_up_after_the_interval() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let world = host("discovery.http.x");
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let mut unit = start(&world, &format!("url = {url:?}\nrefresh_interval = \"50ms\"")).await;
        let text = format!("unable to refresh target groups: no answer from {url} within 50ms");
        until("it is unhealthy", || world.health_text().ends_with(&text)).await;
        // And while it hangs, the component ends nevertheless.
        unit.update(&format!("url = {url:?}\nrefresh_interval = \"1h\"")).await.unwrap();
        unit.drain().await;
    }

    #[tokio::test]
    async fn a_list_that_is_too_long_is_not_read() {
        let server = Server::start(|_| answer(200, JSON, vec![b' '; BODY_BYTES_MAX + 1])).await;
        let world = host("discovery.http.x");
        let _unit = start(&world, &format!("url = {:?}", server.url("/"))).await;
        let text = "body is larger than the limit of 67108864 bytes";
        until("it is unhealthy", || world.health_text().ends_with(text)).await;
    }

    #[tokio::test]
    async fn the_client_is_kept_while_its_settings_are() {
        let (server, _) = service((200, JSON, "[]")).await;
        let cx = host("discovery.http.x").context::<Http>();
        let config = |url: &str, http2| Config {
            url: Url::from(url),
            refresh_interval: Duration::from_secs(60),
            client: ClientConfig { enable_http2: http2, ..ClientConfig::default() },
        };
        let (prepared, _) = Http::prepare(config(&server.url("/a"), true), &cx, None).await.unwrap();
        let component = Http::commit(None, prepared, &cx);
        until("it was asked", || !server.seen().is_empty()).await;
        let (prepared, _) = Http::prepare(config(&server.url("/b"), true), &cx, Some(&component)).await.unwrap();
        let component = Http::commit(Some(component), prepared, &cx);
        until("it was asked for the second", || server.seen().iter().any(|seen| seen.target == "/b")).await;
        let seen = server.seen();
        assert!(seen.iter().all(|other| other.peer == seen[0].peer), "the connection is the same");
        component.drain(&cx).await;
    }
}
