//! The blocks in which receivers are told where and how to listen.

use std::time::Duration;

use corten_component::listen::{Address, ListenSettings};
use corten_component::size::ByteSize;
use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_net::{Http2Limits, PingPolicy, ServerLimits};

use super::tls::TlsServerArguments;
use crate::auth::Handler;

/// How long requests under way may go on when a server stops, in milliseconds.
const DRAIN_MS_MAX: u64 = 30_000;

/// Where and how to listen for HTTP.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(crate) struct HttpServerArguments {
    /// The address and port to listen on, `host:port`.
    #[arg(optional)]
    pub(crate) endpoint: String,
    /// Who may send requests: the `handler` of a component `otelcol.auth.*`. Others are answered with 401.
    auth: Option<Handler>,
    /// The largest body of a request, before as well as after it is unpacked. 0 stands for the default.
    #[arg(default = "20MiB")]
    max_request_body_size: ByteSize,
    /// Whether the headers of requests go with the telemetry, for components that look at them.
    #[arg(default = false)]
    include_metadata: bool,
    /// How bodies may be packed, as `Content-Encoding` names it; the empty name stands for bodies that are not. An empty
    /// list stands for all, `x-snappy-framed` among them.
    #[arg(default = ["", "gzip", "zstd", "zlib", "snappy", "deflate", "lz4"])]
    compression_algorithms: Vec<String>,
    /// Whether a connection of HTTP/1.1 takes further requests after the first.
    #[arg(default = true)]
    keep_alives_enabled: bool,
    /// How long a connection may be without a request. 0 stands for `read_timeout`.
    #[arg(default = "1m")]
    idle_timeout: Duration,
    /// How long the body of a request may take to arrive. 0 sets no limit.
    #[arg(optional)]
    read_timeout: Duration,
    /// How long a client may take nothing of a response. 0 sets no limit.
    #[arg(default = "30s")]
    write_timeout: Duration,
    /// How long the headers of a request may take to arrive. 0 stands for `read_timeout`.
    #[arg(default = "1m")]
    read_header_timeout: Duration,
    /// TLS of the listener. Without the block there is none.
    #[block]
    tls: Option<TlsServerArguments>,
    /// Which web pages of other origins may send requests. Without `allowed_origins` none may.
    #[block]
    pub(super) cors: Option<CorsArguments>,
}

/// The limit of a body where it is written as 0.
const BODY_BYTES_DEFAULT: u64 = 20 << 20;

/// What is known as a coding of HTTP.
const CODINGS: [&str; 8] = ["", "gzip", "zstd", "zlib", "snappy", "deflate", "lz4", "x-snappy-framed"];

impl HttpServerArguments {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        for name in &self.compression_algorithms {
            if !CODINGS.contains(&name.as_str()) {
                errors.push(&["compression_algorithms"], format!("unsupported compression type {name:?}"));
            }
        }
        if let Some(handler) = &self.auth
            && let Err(error) = handler.server()
        {
            errors.push(&["auth"], error);
        }
        errors.into_result()
    }

    pub(super) fn auth(&self) -> Option<&Handler> {
        self.auth.as_ref()
    }

    pub(super) fn body_bytes_max(&self) -> usize {
        let bytes = match self.max_request_body_size.bytes() {
            0 => BODY_BYTES_DEFAULT,
            bytes => bytes,
        };
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    pub(super) fn includes_metadata(&self) -> bool {
        self.include_metadata
    }

    /// Whether bodies may be packed in a way.
    pub(super) fn takes(&self, encoding: &str) -> bool {
        let mut names = self.compression_algorithms.iter();
        if names.len() == 0 { CODINGS.contains(&encoding) } else { names.any(|name| name == encoding) }
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    pub(super) fn listen(&self) -> ListenSettings {
        let or_read = |limit: Duration| millis(limit).or(millis(self.read_timeout));
        ListenSettings {
            address: tcp_address(&self.endpoint, false),
            limits: ServerLimits {
                connections_max: None,
                header_ms_max: or_read(self.read_header_timeout),
                idle_ms_max: or_read(self.idle_timeout),
                write_stall_ms_max: millis(self.write_timeout),
                drain_ms_max: DRAIN_MS_MAX,
                keep_alive: self.keep_alives_enabled,
                ..ServerLimits::default()
            },
            tls: self.tls.as_ref().map(TlsServerArguments::source),
            body_wait_max: if self.read_timeout.is_zero() { Duration::MAX } else { self.read_timeout },
        }
    }
}

/// Which web pages may send requests.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(crate) struct CorsArguments {
    /// The origins, `https://example.com`. One `*` in each stands for any text; `*` by itself is all origins.
    #[arg(optional)]
    pub(super) allowed_origins: Vec<String>,
    /// The headers that requests may have beyond those that always may. `*` is all headers. The default stands for `Accept`,
    /// `Content-Type` and `X-Requested-With`.
    #[arg(default = ["X-Requested-With"])]
    pub(super) allowed_headers: Vec<String>,
    /// The headers of responses that pages may look at.
    #[arg(optional)]
    pub(super) exposed_headers: Vec<String>,
    /// How many seconds browsers may remember what is allowed. 0 leaves it to them, less than 0 tells them not to.
    #[arg(optional)]
    pub(super) max_age: i64,
}

/// Where and how to listen for gRPC.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(crate) struct GrpcServerArguments {
    /// The address and port to listen on, `host:port`; with `transport = "unix"` the path of a socket.
    #[arg(optional)]
    pub(crate) endpoint: String,
    /// What to listen on: `tcp`, `tcp4`, `tcp6` or `unix`.
    #[arg(default = "tcp")]
    transport: String,
    /// Who may make calls: the `handler` of a component `otelcol.auth.*`. Others are answered with `UNAUTHENTICATED`.
    auth: Option<Handler>,
    /// The largest message, before as well as after it is unpacked, cut to whole MiB. What is less than 1MiB stands for the
    /// default.
    #[arg(default = "4MiB")]
    max_recv_msg_size: ByteSize,
    /// How many calls one connection may have under way. Not written or 0, it is 1000.
    #[arg(optional)]
    max_concurrent_streams: u32,
    /// How many bytes of a connection may have arrived that are not read yet. 0 stands for 1MiB.
    #[arg(default = "512KiB")]
    read_buffer_size: ByteSize,
    /// How many bytes of an answer may wait to be written. Not written or 0, it is 400KiB.
    #[arg(optional)]
    write_buffer_size: ByteSize,
    /// Whether the headers of calls go with the telemetry, for components that look at them.
    #[arg(default = false)]
    include_metadata: bool,
    /// TLS of the listener. Without the block there is none.
    #[block]
    tls: Option<TlsServerArguments>,
    /// How connections are kept and closed.
    #[block(optional)]
    keepalive: KeepaliveServerArguments,
}

/// The limit of messages where it is written as less than one MiB.
const MESSAGE_BYTES_DEFAULT: u64 = 4 << 20;
/// How many calls a connection may have under way where nothing is said.
const STREAMS_DEFAULT: u32 = 1000;
/// The limits of the window of HTTP/2: what every connection begins with, and the most that the protocol can say.
const WINDOW_BYTES_MIN: u64 = (64 << 10) - 1;
const WINDOW_BYTES_MAX: u64 = (1 << 31) - 1;

impl GrpcServerArguments {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        if !matches!(&*self.transport, "" | "tcp" | "tcp4" | "tcp6" | "unix") {
            errors.push(&["transport"], format!("invalid transport type {:?}", self.transport));
        }
        if let Some(handler) = &self.auth
            && let Err(error) = handler.server()
        {
            errors.push(&["auth"], error);
        }
        errors.into_result()
    }

    pub(super) fn auth(&self) -> Option<&Handler> {
        self.auth.as_ref()
    }

    pub(super) fn message_bytes_max(&self) -> usize {
        let bytes = match self.max_recv_msg_size.bytes() >> 20 << 20 {
            0 => MESSAGE_BYTES_DEFAULT,
            bytes => bytes,
        };
        // A message says its length in 32 bits.
        usize::try_from(bytes.min(u64::from(u32::MAX))).unwrap_or(usize::MAX)
    }

    pub(super) fn includes_metadata(&self) -> bool {
        self.include_metadata
    }

    pub(super) fn listen(&self) -> ListenSettings {
        let KeepaliveServerArguments { server_parameters: kept, enforcement_policy: policy } = &self.keepalive;
        let window = |bytes: u64| u32::try_from(bytes.clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX)).ok();
        let given = |size: ByteSize| Some(size.bytes()).filter(|bytes| *bytes > 0);
        let or = |limit: Duration, default: Duration| if limit.is_zero() { default } else { limit };
        let http2 = Http2Limits {
            only: true,
            window_bytes: given(self.read_buffer_size).and_then(window),
            send_buffer_bytes: given(self.write_buffer_size).map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
            // Not more often than each second, as in gRPC.
            ping_after_ms: millis(or(kept.time, PING_AFTER_DEFAULT).max(Duration::from_secs(1))),
            ping_answer_ms_max: millis(or(kept.timeout, PING_ANSWER_DEFAULT)).unwrap_or(1),
            pings: Some(PingPolicy {
                gap_ms_min: millis(or(policy.min_time, PING_GAP_DEFAULT)).unwrap_or(1),
                without_request: policy.permit_without_stream,
            }),
        };
        ListenSettings {
            address: match &*self.transport {
                "unix" => Address::Unix(self.endpoint.as_str().into()),
                transport => tcp_address(&self.endpoint, transport == "tcp4"),
            },
            limits: ServerLimits {
                connections_max: None,
                idle_ms_max: millis(kept.max_connection_idle),
                write_stall_ms_max: None,
                http2_streams_max: if self.max_concurrent_streams == 0 {
                    STREAMS_DEFAULT
                } else {
                    self.max_concurrent_streams
                },
                drain_ms_max: DRAIN_MS_MAX,
                age_ms_max: millis(kept.max_connection_age),
                age_grace_ms_max: millis(kept.max_connection_age_grace),
                http2,
                ..ServerLimits::default()
            },
            tls: self.tls.as_ref().map(TlsServerArguments::source),
            body_wait_max: Duration::MAX,
        }
    }
}

/// How connections of gRPC are kept and closed.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub(crate) struct KeepaliveServerArguments {
    /// What the server does.
    #[block(optional)]
    server_parameters: ServerParameters,
    /// What clients may do.
    #[block(optional)]
    enforcement_policy: EnforcementPolicy,
}

const PING_AFTER_DEFAULT: Duration = Duration::from_secs(2 * 60 * 60);
const PING_ANSWER_DEFAULT: Duration = Duration::from_secs(20);
const PING_GAP_DEFAULT: Duration = Duration::from_secs(5 * 60);

/// How a server of gRPC keeps and closes connections.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub(crate) struct ServerParameters {
    /// How long a connection may be without a call. Not written or 0, there is no limit.
    #[arg(optional)]
    max_connection_idle: Duration,
    /// How old a connection may grow until it takes no further calls. Not written or 0, there is no limit.
    #[arg(optional)]
    max_connection_age: Duration,
    /// How long calls under way may go on on a connection that is too old. Not written or 0, there is no limit.
    #[arg(optional)]
    max_connection_age_grace: Duration,
    /// After how long without a sign of life the server pings a client, at least `1s`.
    #[arg(default = "2h")]
    time: Duration,
    /// How long the answer to a ping may take until the connection is closed.
    #[arg(default = "20s")]
    timeout: Duration,
}

/// How often clients of gRPC may ping. Who does so too often is told `too_many_pings`, and the connection is closed.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub(crate) struct EnforcementPolicy {
    /// How much time has to pass between two pings.
    #[arg(default = "5m")]
    min_time: Duration,
    /// Whether clients may ping as often while they have no call under way. Otherwise two hours have to pass between pings
    /// then.
    #[arg(default = false)]
    permit_without_stream: bool,
}

/// A limit in milliseconds; none for zero.
fn millis(limit: Duration) -> Option<u64> {
    (!limit.is_zero()).then(|| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).max(1))
}

/// The address of an endpoint. The host that stands for all addresses of IPv4 is, as in the reference, all addresses of
/// either family.
fn tcp_address(endpoint: &str, is_v4: bool) -> Address {
    let address = match endpoint.rsplit_once(':') {
        Some(("" | "0.0.0.0", port)) if is_v4 => format!("0.0.0.0:{port}"),
        Some(("" | "0.0.0.0" | "[::]", port)) => format!("[::]:{port}"),
        _ => endpoint.to_owned(),
    };
    Address::Tcp(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_addresses_are_those_of_both_families_unless_it_is_said_otherwise() {
        for (endpoint, is_v4, want) in [
            ("0.0.0.0:4317", false, "[::]:4317"),
            (":4317", false, "[::]:4317"),
            ("[::]:4317", false, "[::]:4317"),
            ("0.0.0.0:4317", true, "0.0.0.0:4317"),
            ("127.0.0.1:4317", false, "127.0.0.1:4317"),
            ("[::1]:4317", false, "[::1]:4317"),
            ("localhost:4317", false, "localhost:4317"),
            ("4317", false, "4317"),
        ] {
            assert_eq!(tcp_address(endpoint, is_v4), Address::Tcp(want.to_owned()), "{endpoint}");
        }
    }
}
