//! What servers tell of requests in metrics: under the names that the reference's instrumentation has, and under those that
//! it had before, which dashboards still ask for.

use std::time::Duration;

use corten_component::metrics::{Histogram, Registry, Vector};
use corten_net::grpc::Code;
use http::{Method, StatusCode, Version};

const SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// The bounds that the instrumentation has where nothing is said, for milliseconds and for sizes.
const DEFAULT: &[f64] =
    &[0.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1000.0, 2500.0, 5000.0, 7500.0, 10000.0];

/// The labels of the scope, which come first.
const SCOPE: [&str; 3] = ["otel_scope_name", "otel_scope_version", "otel_scope_schema_url"];

/// Histograms of a scope, with further labels.
#[derive(Clone)]
struct Scoped {
    scope: &'static str,
    histograms: Vector<Histogram>,
}

impl Scoped {
    fn new(
        registry: &Registry,
        scope: &'static str,
        (name, help): (&'static str, &'static str),
        labels: &[&'static str],
        bounds: &'static [f64],
    ) -> Self {
        let labels: Vec<_> = SCOPE.iter().chain(labels).copied().collect();
        Scoped { scope, histograms: registry.histograms(name, help, &labels, bounds) }
    }

    fn observe<const N: usize>(&self, labels: [&str; N], value: f64) {
        let mut values = Vec::with_capacity(SCOPE.len() + N);
        values.extend([self.scope, "", ""]);
        values.extend(labels);
        self.histograms.with(&values).observe(value);
    }
}

/// What is told of requests of HTTP.
#[derive(Clone)]
pub(super) struct HttpMetrics {
    seconds: Scoped,
    milliseconds: Scoped,
    request_bytes: Scoped,
    response_bytes: Scoped,
}

/// A request of HTTP that was answered.
pub(super) struct Answered<'a> {
    pub(super) method: &'a Method,
    /// Where it went to; empty where no route leads.
    pub(super) route: &'a str,
    pub(super) version: Version,
    pub(super) is_encrypted: bool,
    /// Where the server listens.
    pub(super) server: (&'a str, &'a str),
    pub(super) status: StatusCode,
    pub(super) duration: Duration,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
}

impl HttpMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        const HTTP: &str = "go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp";
        const LABELS: &[&str] = &[
            "http_request_method",
            "http_response_status_code",
            "http_route",
            "network_protocol_name",
            "network_protocol_version",
            "server_address",
            "server_port",
            "url_scheme",
        ];
        const OLD: &[&str] = &[
            "http_method",
            "http_scheme",
            "http_status_code",
            "net_host_name",
            "net_host_port",
            "net_protocol_name",
            "net_protocol_version",
        ];
        let make = |what, labels, bounds| Scoped::new(registry, HTTP, what, labels, bounds);
        HttpMetrics {
            seconds: make(
                ("http_server_request_duration_seconds", "Duration of HTTP server requests."),
                LABELS,
                SECONDS,
            ),
            milliseconds: make(
                ("http_server_duration_milliseconds", "Measures the duration of inbound HTTP requests."),
                OLD,
                DEFAULT,
            ),
            request_bytes: make(
                ("http_server_request_body_size_bytes", "Size of HTTP server request bodies."),
                LABELS,
                DEFAULT,
            ),
            response_bytes: make(
                ("http_server_response_body_size_bytes", "Size of HTTP server response bodies."),
                LABELS,
                DEFAULT,
            ),
        }
    }

    pub(super) fn observe(&self, answered: &Answered<'_>) {
        // Clients can make up methods without end.
        const METHODS: [Method; 9] = [
            Method::GET,
            Method::POST,
            Method::OPTIONS,
            Method::HEAD,
            Method::PUT,
            Method::DELETE,
            Method::PATCH,
            Method::TRACE,
            Method::CONNECT,
        ];
        let known = METHODS.iter().find(|known| *known == answered.method);
        let method = known.map_or("_OTHER", Method::as_str);
        let version = match answered.version {
            Version::HTTP_2 => "2",
            Version::HTTP_10 => "1.0",
            _ => "1.1",
        };
        let scheme = if answered.is_encrypted { "https" } else { "http" };
        let (host, port) = answered.server;
        let status = answered.status.as_str();
        let labels = [method, status, answered.route, "http", version, host, port, scheme];
        self.seconds.observe(labels, answered.duration.as_secs_f64());
        self.request_bytes.observe(labels, answered.request_bytes as f64);
        self.response_bytes.observe(labels, answered.response_bytes as f64);
        let labels = [method, scheme, status, host, port, "http", version];
        self.milliseconds.observe(labels, answered.duration.as_secs_f64() * 1000.0);
    }
}

/// What is told of calls of gRPC.
#[derive(Clone)]
pub(super) struct CallMetrics {
    seconds: Scoped,
    milliseconds: Scoped,
    request_bytes: Scoped,
    response_bytes: Scoped,
    requests: Scoped,
    responses: Scoped,
}

impl CallMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        const GRPC: &str = "go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc";
        const LABELS: &[&str] = &["rpc_method", "rpc_response_status_code", "rpc_system_name"];
        const OLD: &[&str] = &["rpc_grpc_status_code", "rpc_method", "rpc_service", "rpc_system"];
        let make = |what, labels, bounds| Scoped::new(registry, GRPC, what, labels, bounds);
        CallMetrics {
            seconds: make(
                (
                    "rpc_server_call_duration_seconds",
                    "Measures the duration of an incoming Remote Procedure Call (RPC).",
                ),
                LABELS,
                SECONDS,
            ),
            milliseconds: make(
                ("rpc_server_duration_milliseconds", "Measures the duration of inbound RPC."),
                OLD,
                DEFAULT,
            ),
            request_bytes: make(
                ("rpc_server_request_size_bytes", "Measures size of RPC request messages (uncompressed)."),
                OLD,
                DEFAULT,
            ),
            response_bytes: make(
                ("rpc_server_response_size_bytes", "Measures size of RPC response messages (uncompressed)."),
                OLD,
                DEFAULT,
            ),
            requests: make(
                ("rpc_server_requests_per_rpc", "Measures the number of messages received per RPC."),
                OLD,
                DEFAULT,
            ),
            responses: make(
                ("rpc_server_responses_per_rpc", "Measures the number of messages sent per RPC."),
                OLD,
                DEFAULT,
            ),
        }
    }

    /// Counts a call of a method that there is, with the lengths of its messages, unpacked; the request's where it was read.
    pub(super) fn observe(
        &self,
        (service, method): (&'static str, &'static str),
        code: Code,
        duration: Duration,
        request_bytes: Option<usize>,
        response_bytes: usize,
    ) {
        let full = format!("{service}/{method}");
        self.seconds.observe([&full, code.name(), "grpc"], duration.as_secs_f64());
        let number = code.0.to_string();
        let labels = [&*number, method, service, "grpc"];
        self.milliseconds.observe(labels, duration.as_secs_f64() * 1000.0);
        self.requests.observe(labels, f64::from(u8::from(request_bytes.is_some())));
        self.responses.observe(labels, f64::from(u8::from(code == Code::OK)));
        if let Some(bytes) = request_bytes {
            self.request_bytes.observe(labels, bytes as f64);
        }
        if code == Code::OK {
            self.response_bytes.observe(labels, response_bytes as f64);
        }
    }
}
