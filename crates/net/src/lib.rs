//! One HTTP client and one HTTP server configuration for the whole program.
//!
//! Whatever talks HTTP does it through this crate: scraping, discovery by HTTP, remote files, every sink, and the
//! receivers and the program's own API on the other side. It holds TLS, authentication, proxies, redirects, request
//! signing, retry arithmetic and the limits, so that a component holds none of them.
//!
//! - [`Client`] sends a request whose body is in memory ([`Body`]) and hands back a response whose body streams
//!   ([`ResponseBody`]). Deadlines are the caller's: dropping the future cancels the request. Nothing is decompressed.
//! - [`serve`] runs HTTP/1.1, HTTP/2 over TLS and HTTP/2 in clear text on one listener, with limits against slow,
//!   idle and numerous clients; [`TlsSwitch`] changes TLS for new connections while it runs.
//! - [`grpc`] is gRPC with one message each way, on both sides.
//! - [`kubernetes`] follows the objects of a cluster.
//! - [`memory`] connects the two within the process, without a socket.
//!
//! It knows no component, no signal and no queue.

mod backoff;
mod body;
mod client;
mod cloud;
mod config;
mod connect;
mod error;
mod files;
pub mod grpc;
mod http1;
pub mod kubernetes;
mod media_type;
pub mod memory;
mod oauth2;
mod observe;
mod proxy;
mod redirect;
mod server;
mod sign;
mod tls;
mod unanswered;

pub use backoff::{Backoff, RETRY_AFTER_SECONDS_MAX, parse_retry_after, retry_after};
pub use body::{Body, BodyError, ResponseBody, read_body_limited, read_body_within};
pub use client::{Client, ClientOptions, Pings};
pub use cloud::{
    AwsService, AzureAdConfig, AzureAdManagedIdentity, AzureAdOAuth, AzureAdSdk, AzureAdWorkloadIdentity,
    GoogleIamConfig, SigV4Config, SigV4Inference,
};
pub use config::{Authorization, BasicAuth, ClientConfig, Headers, OAuth2, ProxyConfig, ProxyUrl, TlsConfig};
pub use connect::Dialer;
pub use corten_config::decode::Secret;
pub use error::{Error, ErrorKind, redact_url, status_text};
pub use media_type::media_type;
pub use oauth2::{Grant, JwtBearer, TextOrFile, TokenSettings, TokenSource};
pub use observe::{ObserveRequests, RequestSpan};
pub use proxy::NoProxy;
pub use server::{
    BasicAuthFilter, BodyFailure, ConnectionInfo, Follow, Handler, Http2Limits, Listener, OnError, Peer, PingPolicy,
    ReceiverHttp, ReceiverTls, ServeOptions, ServerBody, ServerLimits, ServerTls, TlsAcceptor, TlsSource, TlsSwitch,
    WindowsCertificateFilter, WindowsClientFilter, WindowsServerFilter, empty_body, full_body, http_error, serve,
};
pub use sign::Sign;
pub use tls::FurtherTls;
