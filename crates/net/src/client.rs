//! The client.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::header::{AUTHORIZATION, LOCATION, PROXY_AUTHORIZATION, USER_AGENT};
use http::{Extensions, HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::Mutex;
use url::Url;

use crate::config::{BEARER, ClientConfig};
use crate::connect::{Connector, Dialer, Dialling, LazyTls, UsedBefore};
use crate::error::{describe_io, find_cause};
use crate::files::{Stamps, off_thread, read_secret};
use crate::http1::Pool;
use crate::oauth2::TokenSource;
use crate::proxy::{ProxyRules, basic, credentials, header_map};
use crate::redirect::{self, REDIRECTS_MAX};
use crate::tls::{FurtherTls, Material, client_tls};
use crate::{Body, Error, ErrorKind, ObserveRequests, ResponseBody, Secret, Sign, redact_url};

/// How long an unused connection is kept: longer than any sensible interval of scraping.
const IDLE_MS_MAX: u64 = 300_000;
/// How long an HTTP/2 connection may be silent before it is asked whether it still lives, and how long for an answer.
const HTTP2_SILENT_MS_MAX: u64 = 60_000;
const HTTP2_PING_MS_MAX: u64 = 15_000;
/// The largest head of a response of HTTP/2.
const HTTP2_HEAD_BYTES_MAX: u32 = 64 << 10;
/// How often a request that found its kept connection closed is sent again.
const STALE_RETRIES_MAX: usize = 3;
/// How much of a redirect's body is read, so that its connection can be used again.
const REDIRECT_BODY_BYTES_MAX: usize = 2 << 10;

/// What a client is made with beside its configuration: what the program decides, not its user.
#[derive(Clone)]
pub struct ClientOptions {
    /// The `User-Agent` header of every request.
    pub user_agent: HeaderValue,
    /// Connects addresses that this process serves itself.
    pub dialer: Option<Arc<dyn Dialer>>,
    /// Adds headers computed from the request.
    pub sign: Option<Arc<dyn Sign>>,
    /// Headers put in every request after it was signed, in place of those of the same name. An `Authorization` among
    /// them wins over the configured authentication.
    pub headers: HeaderMap,
    /// How long name resolution and connecting may take together.
    pub connect_timeout: Duration,
    /// Whether each new connection takes one of the host's addresses by chance, in place of trying them in order.
    pub random_address: bool,
    /// Whether to speak HTTP/2 from the first byte, without negotiation: what gRPC in clear text needs.
    pub http2_prior_knowledge: bool,
    /// The largest read buffer of an HTTP/1.1 connection on which HTTP/2 was offered and not taken, at least 8192; the
    /// other connections of HTTP/1.1 have none of their own. Buffers start at 8 KiB and grow with what arrives; one is
    /// kept with each idle connection. It also limits the head of a response, give or take a factor of two. Measured with 2,000 idle connections after bodies of 200 kB, each took 27 KiB of memory with 8 KiB here, 42
    /// with 16, 57 with 32 and 140 with 64, and a body cost 1.5 times the CPU with 8 KiB as with 32.
    pub read_buffer_bytes_max: usize,
    /// How many unused connections to one host are kept.
    pub idle_connections_per_host_max: usize,
    /// Connects to this socket in the file system, whatever the host of the URL and the proxy are.
    pub unix_socket: Option<PathBuf>,
    /// Connects to this host or address and port, whatever the host of the URL is. TLS expects the name of the URL.
    pub connect_to: Option<(String, u16)>,
    /// How long an unused connection is kept.
    pub idle_max: Duration,
    /// When to ask whether a connection of HTTP/2 still lives; never, if there is none.
    pub pings: Option<Pings>,
    /// Whether redirects that ask for another method, and drop the body with that, are not followed: they are the response.
    pub keeps_method: bool,
    /// How many bytes are read from a socket at once at most; zero sets no limit.
    pub read_bytes_max: usize,
    /// How many bytes are written to a socket at once at most; zero sets no limit.
    pub write_bytes_max: usize,
    /// More about TLS than the configuration says.
    pub tls: FurtherTls,
    /// Looks at each request.
    pub observe: Option<Arc<dyn ObserveRequests>>,
}

/// When a connection of HTTP/2 is asked whether it still lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pings {
    /// How long it may be silent before that.
    pub after: Duration,
    /// How long the answer may take before the connection is closed.
    pub timeout: Duration,
    /// Whether that is also done while no request is under way.
    pub while_idle: bool,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            user_agent: HeaderValue::from_static("corten"),
            dialer: None,
            sign: None,
            headers: HeaderMap::new(),
            connect_timeout: Duration::from_secs(30),
            random_address: false,
            http2_prior_knowledge: false,
            read_buffer_bytes_max: 16 << 10,
            idle_connections_per_host_max: 1_000,
            unix_socket: None,
            connect_to: None,
            idle_max: Duration::from_millis(IDLE_MS_MAX),
            pings: Some(Pings {
                after: Duration::from_millis(HTTP2_SILENT_MS_MAX),
                timeout: Duration::from_millis(HTTP2_PING_MS_MAX),
                while_idle: true,
            }),
            keeps_method: false,
            read_bytes_max: 0,
            write_bytes_max: 0,
            tls: FurtherTls::default(),
            observe: None,
        }
    }
}

/// Sends requests as configured: with authentication, TLS, a proxy and redirects, over kept connections.
///
/// A clone shares the connections. Dropping the future of a request cancels it; that is how callers set deadlines.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    options: ClientOptions,
    config: ClientConfig,
    auth: Auth,
    /// Headers of the configuration, added to those of a request.
    http_headers: HeaderMap,
    dialling: Arc<Dialling>,
    transport: ArcSwap<Transport>,
    /// Held while TLS material is read again, so that it is read once for all requests that find it changed.
    renewal: Mutex<()>,
    /// When the files of TLS material were looked at last.
    looked: std::sync::Mutex<Instant>,
}

/// The connections made with one state of the TLS material.
struct Transport {
    /// HTTP/1.1 where nothing is negotiated.
    http1: Arc<Pool>,
    /// HTTP/2, and HTTP/1.1 where HTTP/2 was offered and not taken.
    negotiating: legacy::Client<Connector, Body>,
    /// The files that the TLS was made from, empty when there are none.
    stamps: Stamps,
    digest: [u8; 32],
}

/// How requests are authenticated.
enum Auth {
    None,
    /// A header that never changes.
    Fixed(HeaderValue),
    Basic {
        username: String,
        file: PathBuf,
    },
    Bearer {
        kind: String,
        file: PathBuf,
    },
    OAuth2(Box<TokenSource>),
}

impl Client {
    /// Builds a client. All that can be wrong with the configuration is found here; TLS files are read. A password or
    /// token file that is missing is not an error, because it may come later.
    pub async fn new(config: ClientConfig, options: ClientOptions) -> Result<Self, Error> {
        config.check_whole().map_err(|errors| Error::config(errors.to_string()))?;
        if options.read_buffer_bytes_max < 8_192 {
            return Err(Error::config("read_buffer_bytes_max must be at least 8192"));
        }
        let http_headers = header_map(&config.http_headers)?;
        let auth = Auth::new(&config, &options).await?;
        // What is not set or not text counts as absent.
        let proxies = ProxyRules::new(&config.proxy, |name| std::env::var(name).ok())?;
        let dialling = Dialling::new(options.dialer.clone(), proxies, options.connect_timeout, options.random_address);
        let dialling = Arc::new(dialling.with_options(&options));
        let loaded = if config.tls_config.has_material() {
            let (tls_config, further, http2) = (config.tls_config.clone(), options.tls.clone(), config.enable_http2);
            off_thread(move || Loaded::read(&tls_config, &further, http2, None)).await??
        } else {
            Loaded::default()
        };
        let transport = Transport::new(&options, &config, &dialling, loaded);
        let inner = Inner {
            options,
            config,
            auth,
            http_headers,
            dialling,
            transport: ArcSwap::from_pointee(transport),
            renewal: Mutex::default(),
            looked: std::sync::Mutex::new(Instant::now()),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// As [`Client::new`], for the token source of a client, which has a client of its own.
    pub(crate) fn new_boxed(config: ClientConfig, options: ClientOptions) -> BoxFuture<'static, Result<Self, Error>> {
        Box::pin(Self::new(config, options))
    }

    /// Sends a request and gives its response, whatever the status.
    ///
    /// The URL is absolute; user information in it becomes basic authentication. The body is sent as it is, and may be
    /// sent more than once: on a redirect that asks for it, and when a kept connection turns out to be closed.
    pub async fn request(&self, mut request: Request<Body>) -> Result<Response<ResponseBody>, Error> {
        let method = request.method().clone();
        let uri = request.uri().clone();
        let observe = self.inner.options.observe.as_ref();
        let span = observe.and_then(|observe| observe.begin(&method, &uri, request.headers_mut()));
        let response = self.follow(request).await.map_err(|error| {
            let (first, rest) = method.as_str().split_at(1);
            let url = redact_url(&uri.to_string());
            error.of_request(format_args!("{first}{} \"{url}\"", rest.to_ascii_lowercase()))
        });
        match (span, &response) {
            (Some(span), Ok(response)) => span.answered(response.status()),
            (Some(span), Err(error)) => span.failed(error),
            (None, _) => {}
        }
        response
    }

    /// As [`Client::request`], for the token source.
    pub(crate) fn request_boxed(&self, request: Request<Body>) -> BoxFuture<'_, Result<Response<ResponseBody>, Error>> {
        Box::pin(self.request(request))
    }

    /// Sends a request and follows redirects.
    async fn follow(&self, request: Request<Body>) -> Result<Response<ResponseBody>, Error> {
        let (parts, body) = request.into_parts();
        let mut hop = Hop::first(parts.method, parts.uri, parts.headers, body)?;
        let mut first_url = None;
        for _ in 0..=REDIRECTS_MAX {
            let response = self.send(&hop).await?;
            if !self.inner.config.follow_redirects {
                return Ok(response);
            }
            let Some(next) = redirect::redirect(response.status(), &hop.method) else { return Ok(response) };
            if self.inner.options.keeps_method && next.method != hop.method {
                return Ok(response);
            }
            // A redirect without a target is an ordinary response.
            let Some(location) = response.headers().get(LOCATION) else { return Ok(response) };

            let from = hop.url()?;
            let to = redirect::target(&from, location.as_bytes())?;
            let first_url = first_url.get_or_insert(from);
            // Once credentials were held back they stay so, even if a later redirect leads home.
            if !redirect::may_share_credentials(first_url, &to) {
                hop.left_host = true;
            }
            if hop.left_host {
                redirect::strip_sensitive(&mut hop.headers);
            }
            hop.method = next.method;
            if !next.keeps_body {
                hop.body = Body::empty();
                redirect::strip_of_body(&mut hop.headers);
            }
            hop.headers.remove(http::header::HOST);
            hop.set_url(to)?;
            response.into_body().read_start(REDIRECT_BODY_BYTES_MAX).await;
        }
        Err(Error::new(ErrorKind::Redirect, format!("stopped after {REDIRECTS_MAX} redirects")))
    }

    /// Sends one request.
    async fn send(&self, hop: &Hop) -> Result<Response<ResponseBody>, Error> {
        let inner = &*self.inner;
        let https = hop.uri.scheme_str() == Some("https");
        let transport = inner.current_transport(https).await?;

        let mut request = Request::new(hop.body.clone());
        *request.method_mut() = hop.method.clone();
        *request.uri_mut() = hop.uri.clone();
        *request.headers_mut() = hop.headers.clone();
        if let Some(sign) = &inner.options.sign
            && !hop.left_host
        {
            let (mut parts, body) = request.into_parts();
            let added = sign.sign(&parts, &body).await?;
            replace(&mut parts.headers, &added);
            request = Request::from_parts(parts, body);
        }
        let headers = request.headers_mut();
        replace(headers, &inner.options.headers);
        headers.insert(USER_AGENT, inner.options.user_agent.clone());
        for (name, value) in &inner.http_headers {
            headers.append(name.clone(), value.clone());
        }
        if hop.left_host {
            redirect::strip_sensitive(headers);
        }
        if let Some(authorization) = &hop.url_authorization
            && !headers.contains_key(AUTHORIZATION)
        {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let mut token = None;
        if !hop.left_host && !headers.contains_key(AUTHORIZATION) {
            token = inner.auth.header().await?;
            if let Some(authorization) = &token {
                headers.insert(AUTHORIZATION, authorization.clone());
            }
        }
        if !https
            && !inner.options.http2_prior_knowledge
            && let Some(authorization) = inner.proxy_authorization(&hop.uri)
        {
            headers.insert(PROXY_AUTHORIZATION, authorization);
        }

        let negotiates = inner.options.http2_prior_knowledge || (https && inner.config.enable_http2);
        let response = if negotiates {
            exchange(&transport.negotiating, request).await?.map(ResponseBody::negotiated)
        } else {
            let retries = if is_repeatable(request.method()) { STALE_RETRIES_MAX } else { 0 };
            transport.http1.exchange(&request, retries).await?
        };
        if response.status() == StatusCode::UNAUTHORIZED
            && let (Auth::OAuth2(source), Some(token)) = (&inner.auth, &token)
        {
            source.forget(token).await;
        }
        Ok(response)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Puts headers in place of those of the same names.
fn replace(headers: &mut HeaderMap, with: &HeaderMap) {
    for name in with.keys() {
        let mut values = with.get_all(name).iter();
        if let Some(first) = values.next() {
            headers.insert(name.clone(), first.clone());
        }
        for value in values {
            headers.append(name.clone(), value.clone());
        }
    }
}

/// One request of a chain of redirects.
struct Hop {
    method: Method,
    /// Without user information.
    uri: Uri,
    /// The URL with its user information, where it has any: a relative redirect keeps it.
    full_url: Option<Url>,
    /// From the user information of the URL.
    url_authorization: Option<HeaderValue>,
    headers: HeaderMap,
    body: Body,
    /// Whether a redirect has led away from the first host.
    left_host: bool,
}

impl Hop {
    fn first(method: Method, uri: Uri, headers: HeaderMap, body: Body) -> Result<Self, Error> {
        match uri.scheme_str() {
            Some("http" | "https") => {}
            scheme => {
                let text = format!("unsupported protocol scheme \"{}\"", scheme.unwrap_or_default());
                return Err(Error::new(ErrorKind::Request, text));
            }
        }
        if uri.host().is_none_or(str::is_empty) {
            return Err(Error::new(ErrorKind::Request, "no host in request url"));
        }
        let mut hop = Self { method, uri, full_url: None, url_authorization: None, headers, body, left_host: false };
        // Only few URLs have user information: the others are spared the parsing.
        if hop.uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            hop.set_url(hop.url()?)?;
        }
        Ok(hop)
    }

    /// The whole URL.
    fn url(&self) -> Result<Url, Error> {
        match &self.full_url {
            Some(url) => Ok(url.clone()),
            None => Url::parse(&self.uri.to_string()).map_err(|_| Error::new(ErrorKind::Request, "url is not valid")),
        }
    }

    fn set_url(&mut self, url: Url) -> Result<(), Error> {
        self.uri = redirect::to_uri(&url)?;
        let credentials = credentials(&url);
        self.url_authorization = credentials.as_ref().map(|(user, password)| basic(user, password));
        self.full_url = credentials.is_some().then_some(url);
        Ok(())
    }
}

/// Whether a request may be sent a second time without a second effect.
fn is_repeatable(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
}

/// Sends a request over a kept or new connection. A request that may be repeated and finds its kept connection closed
/// by the server, which servers do at any time, is sent again.
async fn exchange(
    http: &legacy::Client<Connector, Body>,
    request: Request<Body>,
) -> Result<Response<hyper::body::Incoming>, Error> {
    let mut retries = if is_repeatable(request.method()) { STALE_RETRIES_MAX } else { 0 };
    let mut request = request;
    loop {
        let again = (retries > 0).then(|| request.clone());
        match http.request(request).await {
            Ok(response) => {
                if let Some(used) = response.extensions().get::<UsedBefore>() {
                    used.set();
                }
                return Ok(response);
            }
            Err(error) => match again {
                Some(again) if was_stale(&error) => {
                    retries -= 1;
                    request = again;
                }
                _ => return Err(describe(&error)),
            },
        }
    }
}

/// Whether a request failed because a connection that had worked before was closed before any of the response came.
fn was_stale(error: &legacy::Error) -> bool {
    let mut extras = Extensions::new();
    if let Some(connected) = error.connect_info() {
        connected.get_extras(&mut extras);
    }
    if !extras.get::<UsedBefore>().is_some_and(UsedBefore::get) {
        return false;
    }
    let Some(hyper) = find_cause::<hyper::Error>(error) else { return false };
    let broken = find_cause::<std::io::Error>(hyper).is_some_and(|io| {
        use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        matches!(io.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
    });
    broken || hyper.is_incomplete_message() || hyper.is_canceled() || hyper.is_closed()
}

fn describe(error: &legacy::Error) -> Error {
    if let Some(ours) = find_cause::<Error>(error) {
        return ours.clone();
    }
    if let Some(hyper) = find_cause::<hyper::Error>(error) {
        return Error::from_hyper(hyper);
    }
    match find_cause::<std::io::Error>(error) {
        Some(io) => Error::new(ErrorKind::Protocol, describe_io(io)),
        None => Error::new(ErrorKind::Protocol, error.to_string()),
    }
}

/// What TLS was made from.
#[derive(Default)]
struct Loaded {
    stamps: Stamps,
    digest: [u8; 32],
    /// `None` when the material is as it was, or there is none.
    tls: Option<crate::tls::ClientTls>,
}

impl Loaded {
    /// Reads and builds, unless the material has the digest that is known.
    fn read(
        config: &crate::TlsConfig,
        further: &FurtherTls,
        http2: bool,
        known: Option<[u8; 32]>,
    ) -> Result<Self, Error> {
        let stamps = Stamps::take(&config.files());
        let material = Material::read(config)?;
        let digest = material.digest();
        let tls = if known == Some(digest) { None } else { Some(client_tls(config, further, &material, http2)?) };
        Ok(Self { stamps, digest, tls })
    }
}

impl Transport {
    fn new(options: &ClientOptions, config: &ClientConfig, dialling: &Arc<Dialling>, loaded: Loaded) -> Self {
        let tls = LazyTls::new(config.tls_config.clone(), options.tls.clone(), config.enable_http2, loaded.tls);
        let connector = Connector::new(dialling.clone(), tls);
        let (idle_max, per_host_max) = (options.idle_max, options.idle_connections_per_host_max);
        let http1 = Pool::new(connector.clone(), per_host_max, idle_max);
        let mut negotiating = legacy::Client::builder(TokioExecutor::new());
        negotiating
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(idle_max)
            .pool_max_idle_per_host(per_host_max)
            .http1_max_buf_size(options.read_buffer_bytes_max)
            .http2_only(options.http2_prior_knowledge)
            .http2_max_header_list_size(HTTP2_HEAD_BYTES_MAX)
            .http2_keep_alive_interval(options.pings.map(|pings| pings.after));
        if let Some(pings) = options.pings {
            negotiating.http2_keep_alive_timeout(pings.timeout).http2_keep_alive_while_idle(pings.while_idle);
        }
        let negotiating = negotiating.build(connector);
        Self { http1, negotiating, stamps: loaded.stamps, digest: loaded.digest }
    }
}

impl Inner {
    /// The connections to use, made anew when the TLS material on disk has changed.
    async fn current_transport(&self, https: bool) -> Result<Arc<Transport>, Error> {
        let current = self.transport.load_full();
        // Without TLS towards the server or a proxy there is nothing to look at.
        if current.stamps.is_empty() || !(https || self.dialling.proxies.uses_tls()) || !self.is_time_to_look() {
            return Ok(current);
        }
        if current.unchanged().await? {
            return Ok(current);
        }
        let _renewal = self.renewal.lock().await;
        // Another request may have done it meanwhile, also for files too young for their stamp to prove anything.
        let current = self.transport.load_full();
        if current.unchanged().await? {
            return Ok(current);
        }
        let (config, http2, known) = (self.config.tls_config.clone(), self.config.enable_http2, current.digest);
        let further = self.options.tls.clone();
        let loaded = off_thread(move || Loaded::read(&config, &further, http2, Some(known))).await??;
        let transport = Arc::new(if loaded.tls.is_none() {
            // The same text was written again: the connections stay.
            let (http1, negotiating) = (current.http1.clone(), current.negotiating.clone());
            Transport { http1, negotiating, stamps: loaded.stamps, digest: loaded.digest }
        } else {
            Transport::new(&self.options, &self.config, &self.dialling, loaded)
        });
        self.transport.store(transport.clone());
        Ok(transport)
    }

    /// Whether files are to be looked at with this request.
    fn is_time_to_look(&self) -> bool {
        let Some(every) = self.options.tls.look_every else { return true };
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = !every.is_zero() && looked.elapsed() >= every;
        if is_due {
            *looked = Instant::now();
        }
        is_due
    }

    /// The credentials for a proxy that a plain request goes through.
    fn proxy_authorization(&self, uri: &Uri) -> Option<HeaderValue> {
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
        let proxy = self.dialling.proxies.select(false, host, uri.port_u16().unwrap_or(80))?;
        if proxy.kind == crate::proxy::ProxyKind::Socks5 { None } else { proxy.authorization.clone() }
    }
}

impl Transport {
    async fn unchanged(&self) -> Result<bool, Error> {
        let stamps = self.stamps.clone();
        off_thread(move || stamps.unchanged()).await
    }
}

impl Auth {
    async fn new(config: &ClientConfig, options: &ClientOptions) -> Result<Self, Error> {
        if let Some(basic_auth) = &config.basic_auth {
            let username = basic_auth.username.clone();
            return Ok(match basic_auth.password_file.as_str() {
                "" => Self::Fixed(basic(&username, basic_auth.password.expose())),
                file => Self::Basic { username, file: file.into() },
            });
        }
        if let Some(oauth2) = &config.oauth2 {
            return Ok(Self::OAuth2(Box::new(TokenSource::new(oauth2.clone(), options).await?)));
        }
        let (kind, credentials, file) = match &config.authorization {
            Some(given) => (given.kind_or_default(), &given.credentials, given.credentials_file.as_str()),
            None if config.has_auth() => (BEARER, &config.bearer_token, config.bearer_token_file.as_str()),
            None => return Ok(Self::None),
        };
        match file {
            "" => typed(kind, credentials).map(Self::Fixed).map_err(Error::config),
            file => Ok(Self::Bearer { kind: kind.to_owned(), file: file.into() }),
        }
    }

    /// The value of the `Authorization` header. Files are read.
    async fn header(&self) -> Result<Option<HeaderValue>, Error> {
        let read = |file: &PathBuf| {
            let file = file.clone();
            off_thread(move || read_secret(&file))
        };
        match self {
            Self::None => Ok(None),
            Self::Fixed(value) => Ok(Some(value.clone())),
            Self::Basic { username, file } => {
                let password =
                    read(file).await?.map_err(|error| error.context("unable to read basic auth password"))?;
                Ok(Some(basic(username, password.expose())))
            }
            Self::Bearer { kind, file } => {
                let credentials =
                    read(file).await?.map_err(|error| error.context("unable to read authorization credentials"))?;
                typed(kind, &credentials).map(Some).map_err(|text| Error::new(ErrorKind::Auth, text))
            }
            Self::OAuth2(source) => source.authorization().await.map(Some),
        }
    }
}

/// An `Authorization` header of a type, marked as sensitive. The error does not show the credentials.
pub(crate) fn typed(kind: &str, credentials: &Secret) -> Result<HeaderValue, &'static str> {
    let value = format!("{kind} {}", credentials.expose());
    let mut value =
        HeaderValue::from_str(value.trim()).map_err(|_| "authorization credentials are not valid in a header")?;
    value.set_sensitive(true);
    Ok(value)
}
