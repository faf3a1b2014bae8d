//! `remote.http`: what an HTTP service answers, as a value.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::http::header::{CONTENT_LENGTH, TRAILER, TRANSFER_ENCODING, USER_AGENT};
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use corten_component::{Component, Context, Error, Health, HealthState, Logger, Stop, Task, Turn, Url};
use corten_config::limits::TEXT_BYTES_MAX;
use corten_config::value::OptionalSecret;
use corten_config::{Arguments, CheckErrors, Exports};
use corten_net::{Body, Client, ClientConfig, ClientOptions, status_text};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// Headers that belong to the connection rather than to the request: the program sets them itself.
const OWN_HEADERS: [HeaderName; 3] = [CONTENT_LENGTH, TRAILER, TRANSFER_ENCODING];

/// Exports what an HTTP service answers, and asks it again and again.
///
/// The service is asked once when the component is loaded or its arguments change, and has to answer `200` then. If it
/// does not later, the component is unhealthy and its export stays as it was. White space at both ends of the answer is
/// taken off. An answer may have up to 64 MiB, and has to be UTF-8 text.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct Config {
    /// The address to ask.
    url: Url,
    /// How often to ask.
    #[arg(default = "1m")]
    poll_frequency: Duration,
    /// How long an answer may take. Less than `poll_frequency`.
    #[arg(default = "10s")]
    poll_timeout: Duration,
    /// Whether the answer is exported as a secret, which is never shown and fits only where a secret is expected.
    #[arg(default = false)]
    is_secret: bool,
    /// The method of the request.
    #[arg(default = "GET")]
    method: String,
    /// Further headers of the request. `Content-Length`, `Transfer-Encoding` and `Trailer` are set by the program itself
    /// and left out here.
    #[arg(default = {})]
    headers: BTreeMap<String, String>,
    /// The body of the request.
    #[arg(default = "")]
    body: String,
    /// How to connect.
    #[block(default)]
    client: ClientConfig,
}

impl Config {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        let (frequency, limit) = (self.poll_frequency, self.poll_timeout);
        // As the reference has it, the first of these is told alone.
        if frequency.is_zero() {
            errors.push(&["poll_frequency"], "poll_frequency must be greater than 0");
        } else if limit.is_zero() {
            errors.push(&["poll_timeout"], "poll_timeout must be greater than 0");
        } else if limit >= frequency {
            errors.push(&["poll_timeout", "poll_frequency"], "poll_timeout must be less than poll_frequency");
        }
        if self.http_method().is_none() {
            errors.push(&["method"], format!("net/http: invalid method {:?}", self.method));
        } else if let Err(error) = self.url.to_uri()
            && !self.url.is_empty()
        {
            // It would be the outcome of the first request, for which the load waits. That a variable of the environment
            // is not set where a configuration is only validated says nothing.
            errors.push(&["url"], Failure::Request(self.failed(&error)).to_string());
        }
        if let Err((name, what)) = self.header_map() {
            errors.push(&["headers"], format!("net/http: invalid header field {what} for {name:?}"));
        }
        errors.into_result()
    }

    /// The method; nothing if it is none. No method means `GET`.
    fn http_method(&self) -> Option<Method> {
        match self.method.as_str() {
            "" => Some(Method::GET),
            method => Method::from_bytes(method.as_bytes()).ok(),
        }
    }

    /// An error of a request that was not sent, in the form of the client's.
    fn failed(&self, error: &str) -> String {
        let method = self.http_method().unwrap_or_default();
        let (first, rest) = method.as_str().split_at(1);
        let url = if self.url.is_empty() { String::new() } else { self.url.to_string() };
        format!("{first}{} \"{url}\": {error}", rest.to_ascii_lowercase())
    }

    /// The headers, or the name of one that is none, and what of it.
    fn header_map(&self) -> Result<HeaderMap, (&str, &'static str)> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| (name.as_str(), "name"))?;
            let mut value = HeaderValue::from_str(value.trim()).map_err(|_| (name.as_str(), "value"))?;
            // It may hold whatever lets the program in.
            value.set_sensitive(true);
            headers.insert(header, value);
        }
        Ok(headers)
    }

    /// How the client is to call itself, if the headers say so.
    fn user_agent(&self) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find(|(name, _)| name.eq_ignore_ascii_case(USER_AGENT.as_str())).map(|(_, value)| value.trim())
    }
}

/// What `remote.http` exports.
#[derive(Exports, Clone, Debug, PartialEq)]
pub struct Offer {
    /// The last answer of the service; a secret if `is_secret` says so.
    #[export(secret_if = "is_secret")]
    content: OptionalSecret,
}

/// The component.
#[derive(Debug)]
pub struct Http {
    turn: Turn<Self>,
    task: Task,
    poller: Arc<Poller>,
}

/// What [`Http`] prepares.
#[derive(Debug)]
pub struct Prepared {
    poller: Arc<Poller>,
    offer: Offer,
    /// When it was asked.
    at: Instant,
}

impl Component for Http {
    const NAME: &'static str = "remote.http";
    type Arguments = Config;
    type Exports = Offer;
    type Prepared = Prepared;

    async fn prepare(config: Config, cx: &Context<Self>, current: Option<&Self>) -> Result<(Prepared, Offer), Error> {
        let poller = Poller::new(config, cx, current.map(|current| &*current.poller)).await?;
        let at = Instant::now();
        let offer = poller.poll().await.map_err(|failure| {
            failure.log(cx.logger());
            failure.to_string()
        })?;
        Ok((Prepared { poller: Arc::new(poller), offer: offer.clone(), at }, offer))
    }

    fn commit(current: Option<Self>, prepared: Prepared, cx: &Context<Self>) -> Self {
        let turn = current.as_ref().map_or_else(|| Turn::first(cx), |current| current.turn.next());
        let Prepared { poller, offer, at } = prepared;
        announce(&turn, &offer);
        for name in OWN_HEADERS.iter().filter(|name| poller.left_out.contains(name)) {
            let fields = [("header", name.as_str().into())];
            cx.logger().warn("header is set by the program itself and left out", &fields);
        }
        let (own, asking) = (turn.clone(), Arc::clone(&poller));
        let task = cx.spawn("poll", move |stop| run(Arc::clone(&asking), own.clone(), at, stop));
        Http { turn, task, poller }
    }

    async fn drain(self, _: &Context<Self>) {
        self.task.stop().await;
    }
}

async fn run(poller: Arc<Poller>, turn: Turn<Http>, at: Instant, mut stop: Stop) -> Result<(), String> {
    let frequency = poller.config.poll_frequency;
    let mut tick = interval_at(at + frequency, frequency);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = stop.wait() => return Ok(()),
            _ = tick.tick() => {}
        }
        let answer = tokio::select! {
            () = stop.wait() => return Ok(()),
            answer = poller.poll() => answer,
        };
        match answer {
            Ok(offer) => announce(&turn, &offer),
            Err(failure) => {
                turn.speak(|cx| {
                    failure.log(cx.logger());
                    let message = format!("polling failed: {failure}");
                    cx.report_health(Some(Health::now(HealthState::Unhealthy, message)));
                });
            }
        }
    }
}

/// Exports an answer, and says that all is well.
fn announce(turn: &Turn<Http>, offer: &Offer) {
    turn.speak(|cx| {
        cx.export(offer);
        cx.report_health(Some(Health::now(HealthState::Healthy, "polled endpoint")));
    });
}

/// Asks the service.
#[derive(Debug)]
struct Poller {
    config: Config,
    client: Client,
    method: Method,
    headers: HeaderMap,
    /// What the user asked for in vain.
    left_out: Vec<HeaderName>,
}

impl Poller {
    /// One for these arguments. It takes over the client of another if that connects in the same way, with its
    /// connections and tokens.
    async fn new(config: Config, cx: &Context<Http>, other: Option<&Poller>) -> Result<Self, Error> {
        // Both were checked when the arguments were decoded.
        let method = config.http_method().ok_or("invalid method")?;
        let mut headers = config.header_map().map_err(|(name, what)| format!("invalid header {what} for {name:?}"))?;
        let left_out = OWN_HEADERS.into_iter().filter(|name| headers.remove(name).is_some()).collect();
        // The client sets this one.
        headers.remove(USER_AGENT);
        let same =
            |other: &&Poller| other.config.client == config.client && other.config.user_agent() == config.user_agent();
        let client = match other.filter(same) {
            Some(other) => other.client.clone(),
            None => {
                let user_agent = config.user_agent().unwrap_or(&cx.services().user_agent);
                let user_agent = HeaderValue::from_str(user_agent).map_err(|error| error.to_string())?;
                let observe = cx.observe_requests();
                let options = ClientOptions { user_agent, observe, ..ClientOptions::default() };
                Client::new(config.client.clone(), options).await.map_err(|error| error.to_string())?
            }
        };
        Ok(Poller { config, client, method, headers, left_out })
    }

    async fn poll(&self) -> Result<Offer, Failure> {
        let limit = self.config.poll_timeout;
        let late = || Failure::Request(self.config.failed(&format!("no answer within {limit:?}")));
        tokio::time::timeout(limit, self.ask()).await.unwrap_or_else(|_| Err(late()))
    }

    async fn ask(&self) -> Result<Offer, Failure> {
        let url = &self.config.url;
        let mut request = Request::new(Body::from(self.config.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = url.to_uri().map_err(|error| Failure::Request(self.config.failed(&error)))?;
        *request.headers_mut() = self.headers.clone();
        let response = self.client.request(request).await;
        let response = response.map_err(|error| Failure::Request(url.in_error(&error)))?;
        let status = response.status();
        if status != StatusCode::OK {
            return Err(Failure::Status(status));
        }
        let read = response.into_body().read(TEXT_BYTES_MAX).await;
        let body = read.map_err(|error| Failure::Body(error.to_string()))?;
        let text = std::str::from_utf8(&body).map_err(|_| Failure::Body("content is not valid UTF-8".to_owned()))?;
        Ok(Offer { content: OptionalSecret { text: text.trim().into(), is_secret: self.config.is_secret } })
    }
}

/// Why there is no answer to export.
#[derive(Debug)]
enum Failure {
    /// There was none.
    Request(String),
    /// It was no success.
    Status(StatusCode),
    /// It did not arrive, or was not what can be exported.
    Body(String),
}

impl Failure {
    fn log(&self, logger: &Logger) {
        match self {
            Failure::Request(error) => logger.error("failed to perform request", &[("err", error.into())]),
            Failure::Status(status) => {
                let fields = [("status", status_text(*status).into())];
                logger.error("unexpected status code from response", &fields);
            }
            Failure::Body(error) => logger.error("failed to read response", &[("err", error.into())]),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Request(error) => write!(f, "performing request: {error}"),
            Failure::Status(status) => write!(f, "unexpected status code {}", status_text(*status)),
            Failure::Body(error) => write!(f, "reading response: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use corten_component::Definition;
    use corten_testkit::{Server, Unit, World, answer, host, load, until};
    use parking_lot::Mutex;

    use super::*;

    const DEFINITION: Definition = Definition::of::<Http>();

    /// Often enough for a test.
    const OFTEN: &str = "poll_frequency = \"30ms\"\npoll_timeout = \"29ms\"";

    /// A service whose answer, a status and a body, can be changed.
    async fn service(status: u16, body: &str) -> (Server, Arc<Mutex<(u16, String)>>) {
        let next = Arc::new(Mutex::new((status, body.to_owned())));
        let answers = Arc::clone(&next);
        let server = Server::start(move |_| {
            let (status, body) = answers.lock().clone();
            answer(status, &[], body)
        });
        (server.await, next)
    }

    /// An address at which nobody listens.
    fn closed() -> std::net::SocketAddr {
        corten_testkit::unused_address()
    }

    async fn start(world: &World, body: &str) -> Unit {
        Unit::start(world.clone(), &DEFINITION, body).await.unwrap()
    }

    async fn refused(body: &str) -> String {
        Unit::start(host("remote.http.x"), &DEFINITION, body).await.unwrap_err()
    }

    #[tokio::test]
    async fn the_answer_is_exported_when_the_component_is_loaded() {
        let (server, _) = service(200, " \n\u{a0}hello\nworld\t\n").await;
        let world = host("remote.http.x");
        let _unit = start(&world, &format!("url = {:?}", server.url("/a?b=c"))).await;
        assert_eq!(world.exported("content"), "\"hello\\nworld\"");
        let seen = &server.seen()[0];
        assert_eq!((seen.method.as_str(), seen.target.as_str()), ("GET", "/a?b=c"));
        assert_eq!(seen.header("user-agent"), "Corten/v0.0.0 (test; binary)");
        assert!(seen.body.is_empty());
    }

    #[tokio::test]
    async fn method_headers_and_body_are_sent() {
        let (server, _) = service(200, "x").await;
        let world = host("remote.http.x");
        let text = format!(
            "url = {:?}\nmethod = \"PUT\"\nbody = \"question\"\nheaders = {{ \"x-a\" = \" 1 \", \"user-agent\" = \"me\", \
             \"Content-Length\" = \"99\", \"Host\" = \"other\" }}\nclient {{\nbearer_token = \"t\"\n}}",
            server.url("/")
        );
        let _unit = start(&world, &text).await;
        let seen = &server.seen()[0];
        assert_eq!((seen.method.as_str(), &*seen.body), ("PUT", &b"question"[..]));
        for (name, value) in [
            ("x-a", "1"),
            ("user-agent", "me"),
            ("content-length", "8"),
            ("host", "other"),
            ("authorization", "Bearer t"),
        ] {
            assert_eq!(seen.header(name), value, "{name}");
        }
        let line =
            "msg=\"header is set by the program itself and left out\" component_id=remote.http.x header=content-length";
        assert!(world.logs().contains(line), "{}", world.logs());
    }

    #[tokio::test]
    async fn an_answer_that_is_no_success_fails_the_load() {
        let (server, next) = service(200, "x").await;
        let text = format!("url = {:?}", server.url("/"));
        for (status, error) in [
            (201, "unexpected status code 201 Created"),
            (404, "unexpected status code 404 Not Found"),
            (500, "unexpected status code 500 Internal Server Error"),
        ] {
            next.lock().0 = status;
            assert_eq!(refused(&text).await, error);
        }
        let error = load(&format!("remote.http \"x\" {{\n{text}\n}}"), &[crate::COMPONENTS]).await.unwrap_err();
        let text = "Failed to build component: building component: unexpected status code 500 Internal Server Error";
        assert!(error.contains(text), "{error}");
    }

    #[tokio::test]
    async fn a_service_that_cannot_be_reached_fails_the_load() {
        let address = closed();
        let error = refused(&format!("url = \"http://user:hunter2@{address}/\"")).await;
        assert!(
            error.starts_with("performing request: Get \"http://") && error.contains("connection refused"),
            "{error}"
        );
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[tokio::test]
    async fn an_address_that_leads_nowhere_is_refused() {
        for (url, error) in [
            ("", "performing request: Get \"\": unsupported protocol scheme \"\""),
            (
                "ftp://host?a=hunter2",
                "performing request: Get \"ftp://host/?a=xxxxx\": unsupported protocol scheme \"ftp\"",
            ),
            ("localhost:9009", "performing request: Get \"localhost:9009\": unsupported protocol scheme \"\""),
            ("user:hunter2@host", "performing request: Get \"(not a url)\": unsupported protocol scheme \"\""),
            ("http://host:hunter2", "performing request: Get \"(not a url)\": invalid url: invalid port number"),
        ] {
            let refused = refused(&format!("url = {url:?}")).await;
            assert!(refused.ends_with(error), "{url}: {refused}");
        }
        let refused = refused("url = \"ftp://host\"\nmethod = \"PATCH\"").await;
        assert!(refused.contains("Patch \"ftp://host/\""), "{refused}");
    }

    #[tokio::test]
    async fn what_of_the_address_was_made_from_a_secret_is_shown_nowhere() {
        let (server, next) = service(200, "1").await;
        let world = host("remote.http.x");
        let names = [("found", corten_config::Value::string(server.url("/hunter2?t=hunter2")).marked(true))];
        let text = format!("url = found\n{OFTEN}");
        let unit = Unit::start_with(world.clone(), &DEFINITION, &text, &names).await.unwrap();
        assert_eq!(server.seen()[0].target, "/hunter2?t=hunter2");
        next.lock().0 = 500;
        until("it is unhealthy", || world.health_text().contains("500")).await;
        drop(server);
        until("nobody is there", || world.health_text().contains("Get \"(secret)\": ")).await;
        let shown = format!("{} {} {:?}", world.health_text(), world.logs(), unit.shown_arguments());
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[tokio::test]
    async fn query_values_are_shown_as_an_argument_only() {
        let address = closed();
        let world = host("remote.http.x");
        let text = format!("url = \"http://{address}/a?token=hunter2&x=hunter2#hunter2\"");
        let error = Unit::start(world.clone(), &DEFINITION, &text).await.unwrap_err();
        let shown = format!("Get \"http://{address}/a?token=xxxxx&x=xxxxx\": dial tcp {address}: connection refused");
        assert_eq!(error, format!("performing request: {shown}"));
        assert!(world.logs().contains("msg=\"failed to perform request\""), "{}", world.logs());
        assert!(!world.logs().contains("hunter2"), "{}", world.logs());
    }

    #[tokio::test]
    async fn a_service_that_hangs_is_given_up_after_the_timeout() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let error = refused(&format!("url = {url:?}\npoll_timeout = \"20ms\"")).await;
        assert_eq!(error, format!("performing request: Get \"{url}\": no answer within 20ms"));
    }

    #[tokio::test]
    async fn a_changed_answer_is_exported_and_a_failure_keeps_the_last() {
        let (server, next) = service(200, "1").await;
        let world = host("remote.http.x");
        let _unit = start(&world, &format!("url = {:?}\n{OFTEN}", server.url("/"))).await;
        *next.lock() = (200, "2".to_owned());
        until("the second is exported", || world.exported("content") == "\"2\"").await;
        until("it is well", || world.health_text() == "healthy: polled endpoint").await;
        *next.lock() = (503, "3".to_owned());
        let text = "unhealthy: polling failed: unexpected status code 503 Service Unavailable";
        until("it is unhealthy", || world.health_text() == text).await;
        assert_eq!(world.exported("content"), "\"2\"");
        let line = "msg=\"unexpected status code from response\" component_id=remote.http.x status=\"503 Service Unavailable\"";
        assert!(world.logs().contains(line), "{}", world.logs());
        *next.lock() = (200, "4".to_owned());
        until("the last is exported", || world.exported("content") == "\"4\"").await;
        assert_eq!(world.exports().len(), 3);
    }

    #[tokio::test]
    async fn a_secret_is_exported_as_one() {
        let (server, _) = service(200, "hush").await;
        let world = host("remote.http.x");
        let _unit = start(&world, &format!("url = {:?}\nis_secret = true", server.url("/"))).await;
        assert_eq!(world.exported("content"), "(secret)");
    }

    #[tokio::test]
    async fn what_is_no_text_or_too_large_is_not_exported() {
        let server = Server::start(|seen| match seen.target.as_str() {
            "/text" => answer(200, &[], vec![0xff]),
            _ => answer(200, &[], vec![b'x'; TEXT_BYTES_MAX + 1]),
        })
        .await;
        let error = refused(&format!("url = {:?}", server.url("/text"))).await;
        assert_eq!(error, "reading response: content is not valid UTF-8");
        let error = refused(&format!("url = {:?}", server.url("/large"))).await;
        assert_eq!(error, "reading response: body is larger than the limit of 67108864 bytes");
    }

    #[tokio::test]
    async fn arguments_that_make_no_sense_are_refused() {
        for (more, error) in [
            ("poll_frequency = \"0s\"", "poll_frequency must be greater than 0"),
            ("poll_timeout = \"0s\"", "poll_timeout must be greater than 0"),
            ("poll_timeout = \"1m\"", "poll_timeout must be less than poll_frequency"),
            ("method = \"A B\"", "net/http: invalid method \"A B\""),
            ("headers = { \"a b\" = \"c\" }", "net/http: invalid header field name for \"a b\""),
            ("headers = { \"a\" = \"b\\nc\" }", "net/http: invalid header field value for \"a\""),
            ("client {\nbearer_token = \"a\"\nbearer_token_file = \"b\"\n}", "at most one of basic_auth"),
        ] {
            let error_found = refused(&format!("url = \"http://localhost\"\n{more}")).await;
            assert!(error_found.contains(error), "{more}: {error_found}");
        }
    }

    #[tokio::test]
    async fn a_reload_asks_anew_over_the_same_connection_and_one_that_fails_changes_nothing() {
        let (server, next) = service(200, "1").await;
        let world = host("remote.http.x");
        let mut unit = start(&world, &format!("url = {:?}\n{OFTEN}", server.url("/a"))).await;
        next.lock().1 = "2".to_owned();
        unit.update(&format!("url = {:?}\n{OFTEN}", server.url("/b"))).await.unwrap();
        assert_eq!(world.exported("content"), "\"2\"");
        let seen = server.seen();
        assert!(seen.iter().all(|other| other.peer == seen[0].peer));
        unit.update("url = \"ftp://host\"").await.unwrap_err();
        next.lock().1 = "3".to_owned();
        until("the second still asks", || world.exported("content") == "\"3\"").await;
        assert!(server.seen().iter().rev().take(1).all(|seen| seen.target == "/b"));
    }

    #[tokio::test]
    async fn a_thousand_reloads_leave_nothing_behind() {
        let (server, _) = service(200, "1").await;
        let world = host("remote.http.x");
        let mut unit = start(&world, &format!("url = {:?}", server.url("/0"))).await;
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        until("connection and task are all there is", || tasks() > 0).await;
        let before = tasks();
        for n in 1..=1_000 {
            unit.update(&format!("url = {:?}", server.url(&format!("/{n}")))).await.unwrap();
        }
        until("the old tasks are gone", || tasks() <= before).await;
        unit.drain().await;
        until("the last task is gone", || tasks() < before).await;
    }
}
