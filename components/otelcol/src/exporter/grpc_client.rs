//! The `client` block of exporters that speak gRPC.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use corten_coding::{Coding, PackError};
use corten_component::metrics::{Histogram, Registry, Vector};
use corten_component::size::ByteSize;
use corten_component::{Error, Services};
use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_config::schema::Stability;
use corten_net::grpc::{Call, Code, Status};
use corten_net::{Client, ClientConfig, ClientOptions, Pings, ProxyConfig};
use corten_otlp::RequestContext;
use http::{HeaderMap, HeaderValue, Uri};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::compression::{Compression, packed};
use super::http_client::header_map;
use super::sending::{Owner, ServerName};
use crate::auth::{ClientAuth, Handler};
use crate::metrics::EXPORTER;
use crate::tls::TlsClientArguments;

/// How to talk to the server.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct GrpcClientArguments {
    /// The server: `host:port`, where all addresses of the host are used; the same with `dns:///` before it;
    /// `passthrough:///host:port`; `http://host:port`; `https://host:port`, which is always with TLS; or `unix:///path`.
    pub endpoint: String,
    /// How to connect to it.
    #[flatten]
    pub connection: ConnectionArguments,
}

/// How to talk to a server, whichever it is.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct ConnectionArguments {
    /// How requests are packed: `gzip`, `snappy`, `zstd` or `none`.
    #[arg(default = "gzip")]
    pub compression: Compression,
    /// TLS towards the server.
    #[block(default)]
    pub tls: TlsClientArguments,
    /// Asks connections whether they still live.
    #[block]
    pub keepalive: Option<KeepaliveArguments>,
    /// How many bytes are read from a connection at once at most; 0 sets no limit.
    #[arg(optional)]
    pub read_buffer_size: ByteSize,
    /// How many bytes are written to a connection at once at most; 0 sets no limit.
    #[arg(default = "512KiB")]
    pub write_buffer_size: ByteSize,
    /// Whether a request waits for a connection as long as it may take, rather than fail where there is none.
    #[arg(default = false)]
    pub wait_for_ready: bool,
    /// Headers of every request.
    #[arg(optional)]
    pub headers: BTreeMap<String, String>,
    /// Which of the addresses of the host requests go to: `round_robin` uses one after the other, `pick_first` the first that
    /// can be connected to.
    #[arg(default = "round_robin")]
    pub balancer_name: String,
    /// What requests and TLS call the server, in place of the host and port.
    #[arg(optional)]
    pub authority: String,
    /// Who adds credentials to requests, from a component whose name begins with `otelcol.auth.`.
    pub auth: Option<Handler>,
}

/// When a connection is asked whether it still lives.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub struct KeepaliveArguments {
    /// How long a connection may be silent before that, at least ten seconds; 0 is for ever.
    #[arg(optional)]
    pub ping_wait: Duration,
    /// How long the answer may take before the connection is closed; 0 means 20 seconds.
    #[arg(optional)]
    pub ping_response_timeout: Duration,
    /// Whether that is also done while no request is under way.
    #[arg(optional)]
    pub ping_without_stream: bool,
}

impl GrpcClientArguments {
    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        Target::read(&self.endpoint).map(drop).map_err(|text| CheckErrors::of(&["endpoint"], text))
    }
}

impl ConnectionArguments {
    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        if let Err(text) = self.compression.of_grpc() {
            errors.push(&["compression"], text);
        }
        if !matches!(self.balancer_name.as_str(), "" | "round_robin" | "pick_first") {
            errors.push(&["balancer_name"], format!("invalid balancer_name: {}", self.balancer_name));
        }
        if let Err(text) = header_map(&self.headers) {
            errors.push(&["headers"], text);
        }
        errors.into_result()
    }

    fn pings(&self) -> Option<Pings> {
        let keepalive = self.keepalive.as_ref().filter(|keepalive| !keepalive.ping_wait.is_zero())?;
        Some(Pings {
            after: keepalive.ping_wait.max(PING_WAIT_MIN),
            timeout: match keepalive.ping_response_timeout {
                Duration::ZERO => Duration::from_secs(20),
                timeout => timeout,
            },
            while_idle: keepalive.ping_without_stream,
        })
    }
}

/// The shortest silence after which gRPC asks.
const PING_WAIT_MIN: Duration = Duration::from_secs(10);
/// The longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// How long a call may take where no limit is set.
const NO_LIMIT: Duration = Duration::from_secs(365 * 24 * 3600);
/// How often the addresses of a host are looked up again.
const LOOK_UP_EVERY: Duration = Duration::from_secs(30);
/// The same while none of them can be connected to.
const LOOK_UP_EVERY_FAILING: Duration = Duration::from_secs(1);
/// How long looking up may take.
const LOOK_UP_WAIT_MAX: Duration = Duration::from_secs(10);
/// The most addresses of a host that are used.
const ADDRESSES_MAX: usize = 64;
/// How long an address is passed over that could not be connected to: growing from the first to the second.
const PASS_OVER_MIN: Duration = Duration::from_secs(1);
const PASS_OVER_MAX: Duration = Duration::from_secs(120);
/// How long a call waits between attempts to connect, where it waits for that.
const CONNECT_EVERY: Duration = Duration::from_millis(500);
/// After so many calls in a row that were not answered in time their connection is given up: nothing else may notice that it
/// leads nowhere.
const UNANSWERED_MAX: u32 = 3;

/// What an endpoint means.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    place: Place,
    /// TLS is on, whatever else is said.
    is_https: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// All addresses of a host.
    Host(String, u16),
    /// What the system connects to.
    One(String, u16),
    Unix(PathBuf),
}

impl Target {
    fn read(endpoint: &str) -> Result<Self, String> {
        if endpoint.is_empty() {
            return Err("requires a non-empty \"endpoint\"".to_owned());
        }
        let unix = endpoint.strip_prefix("unix://").or_else(|| endpoint.strip_prefix("unix:"));
        if let Some(path) = unix {
            if path.is_empty() {
                return Err("unix socket path cannot be empty".to_owned());
            }
            return Ok(Target { place: Place::Unix(path.into()), is_https: false });
        }
        let (is_https, passes, rest) = match endpoint.split_once("://") {
            None => (false, false, endpoint),
            Some(("http", rest)) => (false, false, rest),
            Some(("https", rest)) => (true, false, rest),
            Some((scheme @ ("dns" | "passthrough"), rest)) => match rest.split_once('/') {
                Some(("", rest)) => (false, scheme == "passthrough", rest),
                None => (false, scheme == "passthrough", rest),
                Some((server, _)) => {
                    return Err(format!("the name server {server:?} of the endpoint is not supported"));
                }
            },
            Some((scheme, _)) => return Err(format!("the scheme {scheme:?} of the endpoint is not supported")),
        };
        let (host, port) = host_port(rest)?;
        let place = if passes { Place::One(host, port) } else { Place::Host(host, port) };
        Ok(Target { place, is_https })
    }

    /// What requests call the server.
    fn authority(&self) -> String {
        match &self.place {
            Place::Unix(_) => "localhost".to_owned(),
            Place::Host(host, port) | Place::One(host, port) if host.contains(':') => format!("[{host}]:{port}"),
            Place::Host(host, port) | Place::One(host, port) => format!("{host}:{port}"),
        }
    }
}

/// The host, without brackets, and the port, which is 443 where there is none.
fn host_port(text: &str) -> Result<(String, u16), String> {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':').unwrap_or(rest)),
        None if text.matches(':').count() > 1 => return Err(format!("address {text}: too many colons in address")),
        None => text.rsplit_once(':').unwrap_or((text, "")),
    };
    if host.is_empty() {
        return Err(format!("the endpoint {text:?} has no host"));
    }
    match port {
        "" => Ok((host.to_owned(), 443)),
        port => port.parse().map(|port| (host.to_owned(), port)).map_err(|_| format!("invalid port {port:?}")),
    }
}

/// Makes calls to the server of an exporter.
pub(crate) struct GrpcClient {
    uri: Uri,
    target: Target,
    config: ClientConfig,
    options: ClientOptions,
    /// Each of the addresses has its turn.
    takes_turns: bool,
    turn: AtomicUsize,
    known: Mutex<Known>,
    /// Held while addresses are looked up.
    looking: tokio::sync::Mutex<()>,
    auth: Option<Arc<dyn ClientAuth>>,
    headers: HeaderMap,
    coding: Option<(Coding, &'static str)>,
    timeout: Duration,
    waits: bool,
    metrics: RpcMetrics,
    server: (String, String),
}

/// The addresses that are known.
#[derive(Default)]
struct Known {
    peers: Vec<Arc<Peer>>,
    looked: Option<Instant>,
}

/// An address of the server.
struct Peer {
    /// None where the system chooses.
    address: Option<SocketAddr>,
    client: ArcSwap<Client>,
    /// Until when it is passed over, and for how long.
    passed_over: Mutex<Option<(Instant, Duration)>>,
    /// Calls that were not answered in time, in a row.
    unanswered: AtomicU32,
}

impl Peer {
    fn is_passed_over(&self) -> bool {
        self.passed_over.lock().is_some_and(|(until, _)| until > Instant::now())
    }

    fn pass_over(&self) {
        let mut passed_over = self.passed_over.lock();
        let wait = passed_over.map_or(PASS_OVER_MIN, |(_, wait)| (wait.mul_f64(1.6)).min(PASS_OVER_MAX));
        *passed_over = Some((Instant::now() + wait, wait));
    }
}

fn error(text: impl ToString) -> Error {
    Error::new(text.to_string())
}

impl GrpcClient {
    /// A client for one server.
    ///
    /// # Errors
    ///
    /// What is wrong with the arguments.
    pub(crate) async fn new(
        endpoint: &str,
        arguments: &ConnectionArguments,
        timeout: Duration,
        services: &Services,
        owner: &Owner,
        names_peers: bool,
    ) -> Result<Self, Error> {
        let target = Target::read(endpoint)?;
        let has_tls = target.is_https || arguments.tls.is_on();
        let auth = arguments.auth.as_ref().map(|auth| auth.client().map(Arc::clone)).transpose()?;
        if auth.as_ref().is_some_and(|auth| !auth.is_for_grpc()) {
            return Err("requested authenticator is not a gRPC client authenticator".into());
        }
        if auth.as_ref().is_some_and(|auth| auth.needs_tls()) && !has_tls {
            return Err("grpc: the credentials require transport level security \
                 (use grpc.WithTransportCredentials() to set)"
                .into());
        }
        let (tls_config, tls) = arguments.tls.of_net()?;
        let config = ClientConfig {
            tls_config,
            proxy: ProxyConfig { proxy_from_environment: true, ..ProxyConfig::default() },
            follow_redirects: false,
            ..ClientConfig::default()
        };
        let options = ClientOptions {
            user_agent: HeaderValue::from_str(&services.user_agent).map_err(error)?,
            dialer: Some(Arc::clone(&services.dialer)),
            http2_prior_knowledge: true,
            pings: arguments.pings(),
            read_bytes_max: usize::try_from(arguments.read_buffer_size.bytes()).unwrap_or(usize::MAX),
            write_bytes_max: usize::try_from(arguments.write_buffer_size.bytes()).unwrap_or(usize::MAX),
            unix_socket: match &target.place {
                Place::Unix(path) => Some(path.clone()),
                _ => None,
            },
            tls,
            ..ClientOptions::default()
        };
        let authority = match arguments.authority.as_str() {
            "" => target.authority(),
            authority => authority.to_owned(),
        };
        let scheme = if has_tls { "https" } else { "http" };
        let uri: Uri =
            format!("{scheme}://{authority}").parse().map_err(|_| error(format!("invalid authority {authority:?}")))?;
        let server = match &target.place {
            Place::Unix(path) => (path.display().to_string(), String::new()),
            Place::Host(host, port) | Place::One(host, port) => (host.clone(), port.to_string()),
        };
        let client = GrpcClient {
            takes_turns: arguments.balancer_name != "pick_first" && matches!(target.place, Place::Host(..)),
            uri,
            target,
            config,
            options,
            turn: AtomicUsize::new(0),
            known: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
            auth,
            headers: header_map(&arguments.headers)?,
            coding: arguments.compression.of_grpc()?,
            timeout: if timeout.is_zero() { NO_LIMIT } else { timeout },
            waits: arguments.wait_for_ready,
            metrics: RpcMetrics::new(owner.registry(), owner.name(), names_peers),
            server,
        };
        // What is wrong with TLS is seen now.
        let peer = client.peer_at(None).await.map_err(error)?;
        if !client.takes_turns {
            client.known.lock().peers.push(Arc::new(peer));
        }
        Ok(client)
    }

    /// Whether requests differ by what their telemetry came with.
    pub(crate) fn reads_context(&self) -> bool {
        self.auth.as_ref().is_some_and(|auth| auth.reads_context())
    }

    /// The name of the server.
    pub(crate) fn server(&self) -> ServerName<'_> {
        ServerName { address: &self.server.0, port: &self.server.1, path: "" }
    }

    /// Where the server is.
    pub(crate) fn url(&self) -> String {
        let scheme = self.uri.scheme_str().unwrap_or_default();
        match &self.target.place {
            Place::Unix(path) => format!("unix://{}", path.display()),
            Place::Host(host, port) | Place::One(host, port) if host.contains(':') => {
                format!("{scheme}://[{host}]:{port}")
            }
            Place::Host(host, port) | Place::One(host, port) => format!("{scheme}://{host}:{port}"),
        }
    }

    /// Whether packing takes some computing.
    pub(crate) fn packs(&self) -> bool {
        self.coding.is_some()
    }

    /// Packs a message.
    ///
    /// # Errors
    ///
    /// It cannot be packed in this way.
    pub(crate) fn pack(&self, pieces: Vec<Bytes>) -> Result<Vec<Bytes>, PackError> {
        packed(self.coding.map(|(coding, _)| coding), None, pieces)
    }

    /// A client that connects to one address, or to what the system chooses.
    async fn peer_at(&self, address: Option<SocketAddr>) -> Result<Peer, corten_net::Error> {
        let client = ArcSwap::from_pointee(self.client_to(address).await?);
        Ok(Peer { address, client, passed_over: Mutex::default(), unanswered: AtomicU32::new(0) })
    }

    fn client_to(
        &self,
        address: Option<SocketAddr>,
    ) -> impl Future<Output = Result<Client, corten_net::Error>> + Send + use<> {
        let connect_to = match (address, &self.target.place) {
            (Some(address), _) => Some((address.ip().to_string(), address.port())),
            (None, Place::Host(host, port) | Place::One(host, port)) => Some((host.clone(), *port)),
            (None, Place::Unix(_)) => None,
        };
        Client::new(self.config.clone(), ClientOptions { connect_to, ..self.options.clone() })
    }

    /// Makes a call with a message that is packed, and waits for the answer.
    ///
    /// # Errors
    ///
    /// What the server says, or that it cannot be reached.
    pub(crate) async fn call(
        &self,
        method: &'static str,
        message: Vec<Bytes>,
        context: &RequestContext,
    ) -> Result<Bytes, Status> {
        let began = Instant::now();
        let sent_bytes = message.iter().map(Bytes::len).sum();
        let mut address = None;
        let outcome = tokio::time::timeout(self.timeout, self.attempts(method, message, context, began, &mut address));
        let outcome = match outcome.await {
            Ok(outcome) => outcome,
            Err(_) => Err(Status::new(Code::DEADLINE_EXCEEDED, "context deadline exceeded")),
        };
        self.metrics.observe(self.server(), address, method, &outcome, began.elapsed(), sent_bytes);
        outcome
    }

    async fn attempts(
        &self,
        method: &'static str,
        message: Vec<Bytes>,
        context: &RequestContext,
        began: Instant,
        address: &mut Option<SocketAddr>,
    ) -> Result<Bytes, Status> {
        let mut headers = self.headers.clone();
        if let Some(auth) = &self.auth {
            auth.authorize(&mut headers, context).await.map_err(|error| {
                let code = if error.retry { Code::UNAVAILABLE } else { Code::UNAUTHENTICATED };
                Status::new(code, error.reason)
            })?;
        }
        loop {
            let mut failure = None;
            // Whoever can be connected to has it.
            for peer in self.peers().await? {
                *address = peer.address;
                let call = Call {
                    server: &self.uri,
                    method,
                    encoding: self.coding.map(|(_, name)| name),
                    headers: headers.clone(),
                    timeout: self.timeout.saturating_sub(began.elapsed()).max(Duration::from_millis(1)),
                    answer_bytes_max: ANSWER_BYTES_MAX,
                };
                let client = Client::clone(&peer.client.load());
                let outcome = call.send(&client, message.clone()).await;
                match outcome {
                    Err(status) if status.is_not_connected() => {
                        peer.pass_over();
                        failure = Some(status);
                        continue;
                    }
                    Err(status) if status.code == Code::DEADLINE_EXCEEDED => {
                        self.went_unanswered(&peer);
                        return Err(status);
                    }
                    outcome => {
                        *peer.passed_over.lock() = None;
                        peer.unanswered.store(0, Ordering::Relaxed);
                        return outcome;
                    }
                }
            }
            match failure {
                Some(_) if self.waits => tokio::time::sleep(CONNECT_EVERY).await,
                Some(failure) => return Err(failure),
                None => return Err(Status::new(Code::UNAVAILABLE, "name resolver error: produced zero addresses")),
            }
        }
    }

    /// The addresses to try, in order: each has its turn, and those that could not be connected to lately come last.
    async fn peers(&self) -> Result<Vec<Arc<Peer>>, Status> {
        if self.takes_turns {
            loop {
                match self.look_up().await {
                    Err(_) if self.waits => tokio::time::sleep(CONNECT_EVERY).await,
                    Err(status) => return Err(status),
                    Ok(()) => break,
                }
            }
        }
        let mut peers = self.known.lock().peers.clone();
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % peers.len().max(1);
        peers.rotate_left(first);
        peers.sort_by_key(|peer| peer.is_passed_over());
        Ok(peers)
    }

    /// Looks up the addresses of the host, where it is time to.
    async fn look_up(&self) -> Result<(), Status> {
        let Place::Host(host, port) = &self.target.place else { return Ok(()) };
        let is_due = || {
            let known = self.known.lock();
            let every = match known.peers.iter().all(|peer| peer.is_passed_over()) {
                true => LOOK_UP_EVERY_FAILING,
                false => LOOK_UP_EVERY,
            };
            known.peers.is_empty() || known.looked.is_none_or(|looked| looked.elapsed() >= every)
        };
        if !is_due() {
            return Ok(());
        }
        let is_known = !self.known.lock().peers.is_empty();
        let _looking = match self.looking.try_lock() {
            Ok(looking) => looking,
            // Somebody looks already, and there is somewhere to go meanwhile.
            Err(_) if is_known => return Ok(()),
            Err(_) => self.looking.lock().await,
        };
        if !is_due() {
            return Ok(());
        }
        let found = tokio::time::timeout(LOOK_UP_WAIT_MAX, tokio::net::lookup_host((host.as_str(), *port))).await;
        self.known.lock().looked = Some(Instant::now());
        let unavailable = |text: String| Status::new(Code::UNAVAILABLE, format!("name resolver error: {text}"));
        let mut addresses: Vec<SocketAddr> = match found {
            Ok(Ok(found)) => found.take(ADDRESSES_MAX).collect(),
            // What was found before is better than nothing.
            _ if is_known => return Ok(()),
            Ok(Err(error)) => return Err(unavailable(format!("lookup {host}: {error}"))),
            Err(_) => return Err(unavailable(format!("lookup {host}: i/o timeout"))),
        };
        addresses.sort();
        addresses.dedup();
        let before = self.known.lock().peers.clone();
        let mut peers = Vec::with_capacity(addresses.len());
        for address in addresses {
            match before.iter().find(|peer| peer.address == Some(address)) {
                Some(peer) => peers.push(Arc::clone(peer)),
                None => {
                    let peer = self.peer_at(Some(address)).await.map_err(|error| unavailable(error.to_string()))?;
                    peers.push(Arc::new(peer));
                }
            }
        }
        self.known.lock().peers = peers;
        Ok(())
    }

    /// Gives up the connection after some calls in a row that were not answered, and passes over their address.
    fn went_unanswered(&self, peer: &Arc<Peer>) {
        if peer.unanswered.fetch_add(1, Ordering::Relaxed) + 1 < UNANSWERED_MAX {
            return;
        }
        peer.unanswered.store(0, Ordering::Relaxed);
        // Others may answer: each call to this one costs all the time that a call may take.
        peer.pass_over();
        // The call has no time left to wait for that: files may have to be read.
        let (peer, made) = (Arc::clone(peer), self.client_to(peer.address));
        tokio::spawn(async move {
            if let Ok(client) = made.await {
                peer.client.store(Arc::new(client));
            }
        });
    }
}

/// What is counted of calls.
struct RpcMetrics {
    id: String,
    names_peers: bool,
    calls: Vector<Histogram>,
    durations: Vector<Histogram>,
    request_sizes: Vector<Histogram>,
    response_sizes: Vector<Histogram>,
    requests: Vector<Histogram>,
    responses: Vector<Histogram>,
}

const RPC_SCOPE: &str = "go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc";
const SECONDS_BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
const OLD_BUCKETS: &[f64] =
    &[0.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1000.0, 2500.0, 5000.0, 7500.0, 10000.0];

impl RpcMetrics {
    fn new(registry: &Registry, id: String, names_peers: bool) -> Self {
        let with = |further: &[&'static str]| {
            let mut labels = EXPORTER.to_vec();
            labels.extend(further);
            labels
        };
        let new = with(&["rpc_method", "rpc_response_status_code", "rpc_system_name", "server_address", "server_port"]);
        let old = ["rpc_grpc_status_code", "rpc_method", "rpc_service", "rpc_system"];
        let old = with(&old);
        let mut old_with_peer = old.clone();
        old_with_peer.extend(["net_sock_peer_addr", "net_sock_peer_port"]);
        let old = if names_peers { old_with_peer } else { old };
        let histogram = |name, help| registry.histograms(name, help, &old, OLD_BUCKETS);
        RpcMetrics {
            id,
            names_peers,
            calls: registry.histograms(
                "rpc_client_call_duration_seconds",
                "Measures the duration of an outgoing Remote Procedure Call (RPC).",
                &new,
                SECONDS_BUCKETS,
            ),
            durations: histogram("rpc_client_duration_milliseconds", "Measures the duration of outbound RPC."),
            request_sizes: histogram(
                "rpc_client_request_size_bytes",
                "Measures the size of RPC request messages (uncompressed).",
            ),
            response_sizes: histogram(
                "rpc_client_response_size_bytes",
                "Measures the size of RPC response messages (uncompressed).",
            ),
            requests: histogram("rpc_client_requests_per_rpc", "Measures the number of messages sent per RPC."),
            responses: histogram("rpc_client_responses_per_rpc", "Measures the number of messages received per RPC."),
        }
    }

    fn observe(
        &self,
        server: ServerName<'_>,
        address: Option<SocketAddr>,
        method: &str,
        outcome: &Result<Bytes, Status>,
        took: Duration,
        sent_bytes: usize,
    ) {
        let code = outcome.as_ref().err().map_or(Code::OK, |status| status.code);
        let path = method.trim_start_matches('/');
        let (service, name) = path.split_once('/').unwrap_or((path, ""));
        let labels = [&*self.id, RPC_SCOPE, "", "", path, code.name(), "grpc", server.address, server.port];
        self.calls.with(&labels).observe(took.as_secs_f64());
        let (number, ip, port) = (
            code.0.to_string(),
            address.map(|address| address.ip().to_string()).unwrap_or_default(),
            address.map(|address| address.port().to_string()).unwrap_or_default(),
        );
        let mut labels = vec![&*self.id, RPC_SCOPE, "", "", &number, name, service, "grpc"];
        if self.names_peers {
            labels.extend([&*ip, &port]);
        }
        self.durations.with(&labels).observe(took.as_secs_f64() * 1000.0);
        self.request_sizes.with(&labels).observe(sent_bytes as f64);
        self.requests.with(&labels).observe(1.0);
        if let Ok(answer) = outcome {
            self.response_sizes.with(&labels).observe(answer.len() as f64);
            self.responses.with(&labels).observe(1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use corten_testkit::{host, until};

    use super::super::otlp::OtlpExporter;
    use super::super::testing::GrpcServer;
    use super::*;

    const METHOD: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

    fn connection(balancer_name: &str) -> ConnectionArguments {
        ConnectionArguments {
            compression: Compression::None,
            tls: TlsClientArguments { insecure: true, ..TlsClientArguments::default() },
            keepalive: None,
            read_buffer_size: ByteSize::default(),
            write_buffer_size: ByteSize::default(),
            wait_for_ready: false,
            headers: BTreeMap::new(),
            balancer_name: balancer_name.to_owned(),
            authority: String::new(),
            auth: None,
        }
    }

    #[tokio::test]
    async fn addresses_have_their_turns_and_those_that_are_gone_are_passed_over() {
        let servers = [GrpcServer::start().await, GrpcServer::start().await, GrpcServer::start().await];
        let world = host("otelcol.exporter.otlp.a");
        let cx = world.context::<OtlpExporter>();
        let limit = Duration::from_secs(20);
        let owner = Owner::of(&cx, "otlp");
        let client = GrpcClient::new("tempo:4317", &connection(""), limit, cx.services(), &owner, true).await.unwrap();
        let mut peers = Vec::new();
        for server in &servers {
            peers.push(Arc::new(client.peer_at(Some(server.address)).await.unwrap()));
        }
        *client.known.lock() = Known { peers, looked: Some(Instant::now()) };
        let context = RequestContext::default();
        let call = || client.call(METHOD, Vec::new(), &context);
        for _ in 0..6 {
            call().await.unwrap();
        }
        let seen = || servers.each_ref().map(|server| server.seen().len());
        assert_eq!(seen(), [2, 2, 2]);
        assert!(servers.iter().all(|server| server.seen()[0].authority == "tempo:4317"));
        servers[1].stop.send_replace(true);
        until("it is gone", || std::net::TcpStream::connect(servers[1].address).is_err()).await;
        for _ in 0..6 {
            call().await.unwrap();
        }
        let [first, second, third] = seen();
        assert_eq!((first + third, second), (10, 2));
        assert!(world.metrics().text().contains("net_sock_peer_addr=\"127.0.0.1\""));
    }

    #[tokio::test]
    async fn an_address_that_never_answers_is_passed_over_after_some_calls() {
        let server = GrpcServer::start().await;
        // Connections to it are made by the system, and nobody reads what comes.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let world = host("otelcol.exporter.otlp.a");
        let cx = world.context::<OtlpExporter>();
        let limit = Duration::from_millis(200);
        let owner = Owner::of(&cx, "otlp");
        let client = GrpcClient::new("tempo:4317", &connection(""), limit, cx.services(), &owner, true).await.unwrap();
        let mut peers = Vec::new();
        for address in [silent.local_addr().unwrap(), server.address] {
            peers.push(Arc::new(client.peer_at(Some(address)).await.unwrap()));
        }
        *client.known.lock() = Known { peers, looked: Some(Instant::now() + Duration::from_secs(3600)) };
        let context = RequestContext::default();
        let mut unanswered = 0;
        for _ in 0..20 {
            match client.call(METHOD, Vec::new(), &context).await {
                Ok(_) => {}
                Err(status) if status.code == Code::DEADLINE_EXCEEDED => unanswered += 1,
                Err(status) => panic!("{status}"),
            }
        }
        assert_eq!((unanswered, server.seen().len()), (UNANSWERED_MAX as usize, 20 - UNANSWERED_MAX as usize));
    }

    #[tokio::test]
    async fn a_connection_over_which_nothing_is_answered_is_given_up() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["tempo".to_owned()]).unwrap().self_signed(&key).unwrap();
        let world = host("otelcol.exporter.otlp.a");
        let cx = world.context::<OtlpExporter>();
        let limit = Duration::from_millis(200);
        let owner = Owner::of(&cx, "otlp");
        let mut connection = connection("pick_first");
        connection.tls.insecure = false;
        // It is read on another thread, which takes longer than a call may whose time is over.
        connection.tls.setting.ca_pem = certificate.pem();
        let endpoint = silent.local_addr().unwrap().to_string();
        let client = GrpcClient::new(&endpoint, &connection, limit, cx.services(), &owner, true).await.unwrap();
        let peer = Arc::clone(&client.known.lock().peers[0]);
        let before = peer.client.load_full();
        for _ in 0..UNANSWERED_MAX {
            assert!(Arc::ptr_eq(&before, &peer.client.load_full()));
            client.call(METHOD, Vec::new(), &RequestContext::default()).await.unwrap_err();
        }
        until("there is another one", || !Arc::ptr_eq(&before, &peer.client.load_full())).await;
    }

    #[tokio::test]
    async fn the_first_address_that_can_be_connected_to_is_enough() {
        let server = GrpcServer::start().await;
        let world = host("otelcol.exporter.otlp.a");
        let cx = world.context::<OtlpExporter>();
        let limit = Duration::from_secs(20);
        let owner = Owner::of(&cx, "otlp");
        for (endpoint, balancer) in [
            (format!("localhost:{}", server.address.port()), "pick_first"),
            (format!("localhost:{}", server.address.port()), "round_robin"),
            (format!("passthrough:///{}", server.address), "round_robin"),
        ] {
            let client =
                GrpcClient::new(&endpoint, &connection(balancer), limit, cx.services(), &owner, false).await.unwrap();
            assert_eq!(client.takes_turns, balancer == "round_robin" && endpoint.starts_with("localhost"));
            client.call(METHOD, Vec::new(), &RequestContext::default()).await.unwrap();
        }
        assert_eq!(server.seen().len(), 3);
        let connection = connection("");
        let client = GrpcClient::new("no.such.host.invalid:1", &connection, limit, cx.services(), &owner, false);
        let status = client.await.unwrap().call(METHOD, Vec::new(), &RequestContext::default()).await.unwrap_err();
        assert!(status.message.starts_with("name resolver error: lookup no.such.host.invalid: "), "{status}");
    }

    #[test]
    fn connections_are_asked_whether_they_live_as_they_are_told() {
        let with = |keepalive| ConnectionArguments { keepalive, ..connection("") }.pings();
        let seconds = Duration::from_secs;
        assert_eq!(with(None), None);
        assert_eq!(with(Some(KeepaliveArguments::default())), None);
        let given = |ping_wait, ping_response_timeout| {
            Some(KeepaliveArguments { ping_wait, ping_response_timeout, ping_without_stream: true })
        };
        let pings = |after, timeout| Some(Pings { after, timeout, while_idle: true });
        assert_eq!(with(given(seconds(1), seconds(0))), pings(seconds(10), seconds(20)));
        assert_eq!(with(given(seconds(60), seconds(3))), pings(seconds(60), seconds(3)));
    }

    #[test]
    fn endpoints_mean_what_they_do_in_grpc() {
        let host = |host: &str, port| Place::Host(host.to_owned(), port);
        for (endpoint, place, is_https, authority) in [
            ("tempo:4317", host("tempo", 4317), false, "tempo:4317"),
            ("tempo", host("tempo", 443), false, "tempo:443"),
            ("http://tempo:4317", host("tempo", 4317), false, "tempo:4317"),
            ("https://tempo:4317", host("tempo", 4317), true, "tempo:4317"),
            ("dns:///tempo:4317", host("tempo", 4317), false, "tempo:4317"),
            ("dns://tempo:4317", host("tempo", 4317), false, "tempo:4317"),
            ("[::1]:4317", host("::1", 4317), false, "[::1]:4317"),
            ("passthrough:///tempo:1", Place::One("tempo".to_owned(), 1), false, "tempo:1"),
            ("unix:///run/otlp.sock", Place::Unix("/run/otlp.sock".into()), false, "localhost"),
            ("unix:otlp.sock", Place::Unix("otlp.sock".into()), false, "localhost"),
        ] {
            let target = Target::read(endpoint).unwrap();
            assert_eq!(target, Target { place, is_https }, "{endpoint}");
            assert_eq!(target.authority(), authority);
        }
        for (endpoint, text) in [
            ("", "requires a non-empty \"endpoint\""),
            ("unix://", "unix socket path cannot be empty"),
            ("tempo:otlp", "invalid port \"otlp\""),
            ("::1:4317", "address ::1:4317: too many colons in address"),
            (":4317", "the endpoint \":4317\" has no host"),
            ("xds:///tempo", "the scheme \"xds\" of the endpoint is not supported"),
            ("dns://8.8.8.8/tempo:4317", "the name server \"8.8.8.8\" of the endpoint is not supported"),
        ] {
            assert_eq!(Target::read(endpoint).unwrap_err(), text);
        }
    }
}
