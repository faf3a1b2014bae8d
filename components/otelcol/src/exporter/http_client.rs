//! The `client` block of exporters that speak HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use bytes::Bytes;
use corten_coding::{Coding, PackError};
use corten_component::metrics::{Histogram, Registry, Vector};
use corten_component::size::ByteSize;
use corten_component::{Error, Services};
use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_config::schema::Stability;
use corten_net::{Body, Client, ClientConfig, ClientOptions, Pings, ProxyConfig, ProxyUrl};
use corten_otlp::RequestContext;
use http::header::{CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, COOKIE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version};
use tokio::sync::Semaphore;

use super::compression::{Compression, packed};
use super::cookies::Cookies;
use super::sending::Failure;
use crate::auth::{ClientAuth, Handler};
use crate::metrics::EXPORTER;
use crate::tls::TlsClientArguments;

/// How to talk to the server.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct HttpClientArguments {
    /// The URL of the server.
    pub endpoint: String,
    /// The proxy to go through: `http`, `https`, `socks5` or `socks5h`. Without one it is taken from `HTTP_PROXY`,
    /// `HTTPS_PROXY` and `NO_PROXY`.
    #[arg(optional)]
    pub proxy_url: ProxyUrl,
    /// How requests are packed: `gzip`, `zlib`, `deflate`, `snappy`, `zstd` or `none`.
    #[arg(default = "gzip")]
    pub compression: Compression,
    /// How requests are packed, more exactly.
    #[block]
    pub compression_params: Option<CompressionParams>,
    /// TLS towards the server.
    #[block(default)]
    pub tls: TlsClientArguments,
    /// How many bytes are read from a connection at once at most; 0 sets no limit.
    #[arg(default = "0")]
    pub read_buffer_size: ByteSize,
    /// How many bytes are written to a connection at once at most; 0 sets no limit.
    #[arg(default = "512KiB")]
    pub write_buffer_size: ByteSize,
    /// How long a request may take, with its answer; 0 sets no limit.
    #[arg(default = "30s")]
    pub timeout: Duration,
    /// Headers of every request, in place of those of the same name.
    #[arg(optional)]
    pub headers: BTreeMap<String, String>,
    /// How many unused connections are kept; 0 sets no limit. Where signals go to different servers they share them out.
    #[arg(default = 100)]
    pub max_idle_conns: u32,
    /// How many unused connections to one server are kept; with 0 only `max_idle_conns` counts.
    #[arg(default = 0)]
    pub max_idle_conns_per_host: u32,
    /// How many connections to one server there may be; 0 sets no limit. With HTTP/2, which needs one, it has no meaning.
    #[arg(default = 0)]
    pub max_conns_per_host: u32,
    /// How long an unused connection is kept; 0 is for ever.
    #[arg(default = "90s")]
    pub idle_conn_timeout: Duration,
    /// Whether to close each connection after one request.
    #[arg(default = false)]
    pub disable_keep_alives: bool,
    /// How long a connection of HTTP/2 may be silent before it is asked whether it still lives; 0 is never.
    #[arg(default = "0s")]
    pub http2_read_idle_timeout: Duration,
    /// How long the answer to that may take before the connection is closed; 0 means 15 seconds.
    #[arg(default = "15s")]
    pub http2_ping_timeout: Duration,
    /// Whether to offer HTTP/2 in a TLS handshake.
    #[arg(default = true)]
    pub force_attempt_http2: bool,
    /// Who adds credentials to requests, from a component whose name begins with `otelcol.auth.`.
    pub auth: Option<Handler>,
    /// Sends cookies back that the server has set.
    #[block]
    pub cookies: Option<CookiesArguments>,
}

/// How requests are packed, more exactly.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct CompressionParams {
    /// How hard to try with `gzip`, `zlib` and `deflate`: 1 is fastest, 9 packs smallest, 0 and -1 mean 5, and -2 means 1.
    /// `zstd` takes any level and has one.
    pub level: i64,
}

/// Cookies.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub struct CookiesArguments {
    /// Whether cookies are sent back that the server has set.
    #[arg(default = false)]
    pub enabled: bool,
}

impl HttpClientArguments {
    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        if let Some(CompressionParams { level }) = self.compression_params {
            let fits = match self.compression {
                Compression::Gzip | Compression::Zlib | Compression::Deflate => (-2..=9).contains(&level),
                Compression::Zstd | Compression::None | Compression::Empty => true,
                Compression::Snappy => level == 0,
            };
            if !fits {
                let name = self.compression.of_http().map_or("", |(_, name)| name);
                let text = format!("unsupported parameters {{Level:{level:+}}} for compression type {name:?}");
                errors.push(&["compression_params", "compression"], text);
            }
        }
        if let Err(text) = header_map(&self.headers) {
            errors.push(&["headers"], text);
        }
        errors.into_result()
    }

    fn level(&self) -> Option<u32> {
        match self.compression_params.as_ref()?.level {
            -2 => Some(1),
            level => u32::try_from(level).ok().filter(|level| *level > 0),
        }
    }
}

/// Headers of the configuration as headers of the protocol.
pub(crate) fn header_map(headers: &BTreeMap<String, String>) -> Result<HeaderMap, String> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let invalid = |what: &str| format!("{what} of the header {name:?} is not valid");
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid("name"))?;
        let mut value = HeaderValue::from_str(value.trim()).map_err(|_| invalid("value"))?;
        value.set_sensitive(true);
        map.insert(name, value);
    }
    Ok(map)
}

/// The most of an answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// After so many requests in a row that were not answered in time the connections are given up: over HTTP/2 nothing else
/// would notice that they lead nowhere.
const UNANSWERED_MAX: u32 = 3;

/// Sends requests to the servers of an exporter.
pub(crate) struct HttpClient {
    client: ArcSwap<Client>,
    config: ClientConfig,
    options: ClientOptions,
    /// Requests that were not answered in time, in a row.
    unanswered: AtomicU32,
    auth: Option<Arc<dyn ClientAuth>>,
    headers: HeaderMap,
    coding: Option<(Coding, &'static str)>,
    level: Option<u32>,
    timeout: Option<Duration>,
    closes: bool,
    cookies: Option<Cookies>,
    /// How many connections there may be to each of the servers.
    connections: Vec<(String, Semaphore)>,
    /// Whether answers come over HTTP/2.
    is_http2: AtomicBool,
    metrics: HttpMetrics,
}

/// An answer that came in time.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// The beginning of it, or why it could not be read.
    pub(crate) body: Result<Bytes, String>,
}

impl HttpClient {
    /// A client for requests to some addresses.
    pub(crate) async fn new(
        arguments: &HttpClientArguments,
        to: &[&Uri],
        services: &Services,
        registry: &Registry,
        id: String,
    ) -> Result<Self, Error> {
        let auth = arguments.auth.as_ref().map(|auth| auth.client().map(Arc::clone)).transpose()?;
        let (tls_config, tls) = arguments.tls.of_net()?;
        let config = ClientConfig {
            tls_config,
            enable_http2: arguments.force_attempt_http2,
            proxy: ProxyConfig {
                proxy_from_environment: arguments.proxy_url.is_empty(),
                proxy_url: arguments.proxy_url.clone(),
                ..ProxyConfig::default()
            },
            ..ClientConfig::default()
        };
        let mut headers = header_map(&arguments.headers)?;
        let user_agent = HeaderValue::from_str(&services.user_agent).map_err(|error| Error::new(error.to_string()))?;
        let user_agent = headers.remove(USER_AGENT).unwrap_or(user_agent);
        let mut hosts: Vec<String> = to.iter().filter_map(|uri| Some(uri.authority()?.to_string())).collect();
        hosts.sort();
        hosts.dedup();
        let or_all = |limit: u32| if limit == 0 { usize::MAX } else { limit as usize };
        let idle_max = or_all(arguments.max_idle_conns).div_ceil(hosts.len().max(1));
        let options = ClientOptions {
            user_agent,
            dialer: Some(Arc::clone(&services.dialer)),
            sign: auth.as_ref().and_then(|auth| auth.signer()),
            idle_connections_per_host_max: match arguments.disable_keep_alives {
                true => 0,
                false => idle_max.min(or_all(arguments.max_idle_conns_per_host)),
            },
            idle_max: match arguments.idle_conn_timeout {
                Duration::ZERO => Duration::from_secs(u64::from(u32::MAX)),
                idle_max => idle_max,
            },
            pings: (!arguments.http2_read_idle_timeout.is_zero()).then(|| Pings {
                after: arguments.http2_read_idle_timeout,
                timeout: match arguments.http2_ping_timeout {
                    Duration::ZERO => Duration::from_secs(15),
                    timeout => timeout,
                },
                while_idle: true,
            }),
            // Whoever answers a request without its body has not taken it.
            keeps_method: true,
            read_bytes_max: usize::try_from(arguments.read_buffer_size.bytes()).unwrap_or(usize::MAX),
            write_bytes_max: usize::try_from(arguments.write_buffer_size.bytes()).unwrap_or(usize::MAX),
            tls,
            ..ClientOptions::default()
        };
        let client =
            Client::new(config.clone(), options.clone()).await.map_err(|error| Error::new(error.to_string()))?;
        let connections_max = (or_all(arguments.max_conns_per_host)).min(Semaphore::MAX_PERMITS);
        Ok(HttpClient {
            client: ArcSwap::from_pointee(client),
            config,
            options,
            unanswered: AtomicU32::new(0),
            auth,
            headers,
            coding: arguments.compression.of_http(),
            level: arguments.level(),
            timeout: (!arguments.timeout.is_zero()).then_some(arguments.timeout),
            closes: arguments.disable_keep_alives,
            cookies: arguments.cookies.as_ref().is_some_and(|cookies| cookies.enabled).then(Cookies::default),
            connections: hosts.into_iter().map(|host| (host, Semaphore::new(connections_max))).collect(),
            is_http2: AtomicBool::new(false),
            metrics: HttpMetrics::new(registry, id),
        })
    }

    /// Whether requests differ by what their telemetry came with.
    pub(crate) fn reads_context(&self) -> bool {
        self.auth.as_ref().is_some_and(|auth| auth.reads_context())
    }

    /// Whether packing takes some computing.
    pub(crate) fn packs(&self) -> bool {
        self.coding.is_some()
    }

    /// Packs the body of a request.
    ///
    /// # Errors
    ///
    /// It cannot be packed in this way.
    pub(crate) fn pack(&self, pieces: Vec<Bytes>) -> Result<Vec<Bytes>, PackError> {
        packed(self.coding.map(|(coding, _)| coding), self.level, pieces)
    }

    /// Sends the body of a request, once.
    ///
    /// # Errors
    ///
    /// Why there is no answer.
    pub(crate) async fn post(
        &self,
        uri: &Uri,
        content_type: &'static str,
        body: Vec<Bytes>,
        context: &RequestContext,
    ) -> Result<Answer, Failure> {
        let began = Instant::now();
        let body = Body::from(body);
        let sent_bytes = body.len_bytes();
        let exchange = self.exchange(uri, content_type, body, context);
        let outcome = match self.timeout {
            None => exchange.await,
            Some(timeout) => match tokio::time::timeout(timeout, exchange).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    self.went_unanswered().await;
                    let url = corten_net::redact_url(&uri.to_string());
                    let text = format!(
                        "failed to make an HTTP request: Post {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
                    );
                    Err(Failure { kind: "Deadline_Exceeded", ..Failure::passing(text) })
                }
            },
        };
        let answered = outcome.as_ref().ok().map(|(answer, version)| (answer.status, *version));
        self.metrics.observe(uri, answered, began.elapsed(), sent_bytes);
        outcome.map(|(answer, _)| answer)
    }

    async fn exchange(
        &self,
        uri: &Uri,
        content_type: &'static str,
        body: Body,
        context: &RequestContext,
    ) -> Result<(Answer, Version), Failure> {
        let mut request = Request::post(uri).body(body).map_err(|error| Failure::permanent(error.to_string()))?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        if let Some((_, name)) = self.coding {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
        }
        if self.closes {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(cookies) = self.cookies.as_ref().and_then(|cookies| cookies.header(uri)) {
            headers.insert(COOKIE, cookies);
        }
        self.headers.iter().for_each(|(name, value)| drop(headers.insert(name, value.clone())));
        if let Some(auth) = &self.auth {
            auth.authorize(headers, context).await.map_err(|error| match error.retry {
                true => Failure::passing(format!("failed to make an HTTP request: {}", error.reason)),
                false => Failure::permanent(format!("failed to make an HTTP request: {}", error.reason)),
            })?;
        }
        // Over HTTP/2 one connection is enough for all.
        let host = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        let connections = self.connections.iter().find(|(known, _)| known == host);
        let _connection = match connections {
            Some((_, connections)) if !self.is_http2.load(Ordering::Relaxed) => connections.acquire().await.ok(),
            _ => None,
        };
        let client = Client::clone(&self.client.load());
        let response = client.request(request).await.map_err(|error| match error.is_transient() {
            true => Failure::passing(format!("failed to make an HTTP request: {error}")),
            false => Failure::permanent(format!("failed to make an HTTP request: {error}")),
        })?;
        self.unanswered.store(0, Ordering::Relaxed);
        self.is_http2.store(response.version() == Version::HTTP_2, Ordering::Relaxed);
        if let Some(cookies) = &self.cookies {
            cookies.keep(uri, response.headers());
        }
        let version = response.version();
        Ok((answer(response).await, version))
    }

    /// Gives up the connections after some requests in a row that were not answered.
    async fn went_unanswered(&self) {
        if self.unanswered.fetch_add(1, Ordering::Relaxed) + 1 < UNANSWERED_MAX {
            return;
        }
        self.unanswered.store(0, Ordering::Relaxed);
        if let Ok(client) = Client::new(self.config.clone(), self.options.clone()).await {
            self.client.store(Arc::new(client));
        }
    }
}

async fn answer(response: Response<corten_net::ResponseBody>) -> Answer {
    let (parts, mut body) = response.into_parts();
    let mut start = Vec::new();
    let body = loop {
        match body.chunk().await {
            Ok(Some(chunk)) => {
                let room = ANSWER_BYTES_MAX - start.len();
                start.extend_from_slice(&chunk[..chunk.len().min(room)]);
                if start.len() == ANSWER_BYTES_MAX {
                    break Ok(start.into());
                }
            }
            Ok(None) => break Ok(start.into()),
            Err(error) => break Err(error.to_string()),
        }
    };
    Answer { status: parts.status, headers: parts.headers, body }
}

/// What is counted of requests.
struct HttpMetrics {
    id: String,
    durations: Vector<Histogram>,
    sizes: Vector<Histogram>,
}

const HTTP_SCOPE: &str = "go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp";
const DURATION_BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
const SIZE_BUCKETS: &[f64] =
    &[0.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1000.0, 2500.0, 5000.0, 7500.0, 10000.0];

impl HttpMetrics {
    fn new(registry: &Registry, id: String) -> Self {
        let mut labels = EXPORTER.to_vec();
        labels.extend([
            "http_request_method",
            "http_response_status_code",
            "network_protocol_name",
            "network_protocol_version",
            "server_address",
            "server_port",
            "url_scheme",
        ]);
        HttpMetrics {
            id,
            durations: registry.histograms(
                "http_client_request_duration_seconds",
                "Duration of HTTP client requests.",
                &labels,
                DURATION_BUCKETS,
            ),
            sizes: registry.histograms(
                "http_client_request_body_size_bytes",
                "Size of HTTP client request bodies.",
                &labels,
                SIZE_BUCKETS,
            ),
        }
    }

    fn observe(&self, uri: &Uri, answered: Option<(StatusCode, Version)>, took: Duration, bytes: u64) {
        let version = answered.map_or("", |(_, version)| match version {
            Version::HTTP_2 => "2",
            Version::HTTP_10 => "1.0",
            _ => "1.1",
        });
        let status = answered.map(|(status, _)| status.as_u16().to_string()).unwrap_or_default();
        let protocol = answered.map_or("", |_| "http");
        let port = uri.port_u16().map(|port| port.to_string()).unwrap_or_default();
        let (host, scheme) = (uri.host().unwrap_or_default(), uri.scheme_str().unwrap_or_default());
        let labels = [&*self.id, HTTP_SCOPE, "", "", "POST", &status, protocol, version, host, &port, scheme];
        self.durations.with(&labels).observe(took.as_secs_f64());
        self.sizes.with(&labels).observe(bytes as f64);
    }
}

/// How long an answer asks to wait; nothing if it does not say that.
pub(crate) fn asked_wait(headers: &HeaderMap) -> Option<Duration> {
    corten_net::retry_after(headers, SystemTime::now())
}
