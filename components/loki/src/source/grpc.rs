//! The `grpc` block of sources that receive over HTTP: a server that has no services, as in the reference.

use std::sync::Arc;
use std::time::Duration;

use corten_component::listen::{ListenSettings, Listening, Report, RequestMetricNames, RequestMetrics};
use corten_component::{Component, Context, Error, Task};
use corten_config::{Arguments, CheckErrors};
use corten_net::{ReceiverHttp, ReceiverTls, ServerBody, ServerLimits, empty_body};
use http::{HeaderValue, Request, Response, header};
use hyper::body::Incoming;

/// Where and how to listen for gRPC. No service is served: each call is answered with `UNIMPLEMENTED`. Without the block
/// nothing listens.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct GrpcArguments {
    /// The address to listen on. Empty means all.
    #[arg(default = "")]
    listen_address: String,
    /// The port to listen on. `0` takes any that is free.
    #[arg(default = 0)]
    listen_port: i64,
    /// How many connections are served at a time. `0` sets no limit.
    #[arg(default = 0)]
    conn_limit: i64,
    /// How old a connection may grow until it is closed. Not written, there is no limit.
    max_connection_age: Option<Duration>,
    /// How long calls under way may go on on a connection that is too old. Not written, there is no limit.
    max_connection_age_grace: Option<Duration>,
    /// How long a connection may be without a call. Not written, there is no limit.
    max_connection_idle: Option<Duration>,
    /// The largest message that is received, in bytes. None is, because no service is served.
    server_max_recv_msg_size: Option<i64>,
    /// The largest message that is sent, in bytes. None is, because no service is served.
    server_max_send_msg_size: Option<i64>,
    /// How many calls one connection may have under way.
    #[arg(default = 100)]
    server_max_concurrent_streams: u32,
    /// TLS of the listener.
    #[block]
    tls: Option<ReceiverTls>,
}

impl GrpcArguments {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        let text = format!("invalid listen_port {}: a port is a number from 0 to 65535", self.listen_port);
        errors.require(u16::try_from(self.listen_port).is_ok(), &["listen_port"], &text);
        errors.into_result()
    }

    fn http(&self) -> ReceiverHttp {
        ReceiverHttp {
            listen_address: self.listen_address.clone(),
            listen_port: self.listen_port,
            conn_limit: self.conn_limit,
            server_idle_timeout: self.max_connection_idle.unwrap_or_default(),
            tls: self.tls.clone(),
            ..ReceiverHttp::default()
        }
    }

    fn limits(&self, limits: ServerLimits) -> ServerLimits {
        let ms = |limit: Option<Duration>| limit.map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        ServerLimits {
            http2_streams_max: self.server_max_concurrent_streams,
            age_ms_max: ms(self.max_connection_age.filter(|age| !age.is_zero())),
            age_grace_ms_max: ms(self.max_connection_age_grace),
            ..limits
        }
    }
}

/// A server without services.
pub(super) struct GrpcServer {
    listening: Arc<Listening>,
    task: Task,
}

/// Reads what the block needs.
pub(super) async fn prepare(
    arguments: Option<&GrpcArguments>,
    drain_wait_max: Duration,
    current: Option<&GrpcServer>,
) -> Result<Option<ListenSettings>, Error> {
    let Some(arguments) = arguments else { return Ok(None) };
    let before = current.map(|current| current.listening.settings());
    let settings = ListenSettings::prepare(&arguments.http(), drain_wait_max, before.as_deref()).await?;
    Ok(Some(ListenSettings { limits: arguments.limits(settings.limits), ..settings }))
}

impl GrpcServer {
    /// Puts what was prepared in place.
    pub(super) fn commit<C: Component>(
        current: Option<Self>,
        settings: Option<ListenSettings>,
        names: RequestMetricNames,
        report: &Report,
        cx: &Context<C>,
    ) -> Option<Self> {
        match (current, settings) {
            (_, None) => None,
            (Some(current), Some(settings)) => {
                current.listening.set(settings);
                Some(current)
            }
            (None, Some(settings)) => {
                let metrics = RequestMetrics::of_protocol(cx.metrics(), names, "grpc");
                let logger = cx.logger().clone();
                let listening = Arc::new(Listening::new(settings, &metrics, logger, "listening for gRPC"));
                let (serving, report) = (Arc::clone(&listening), Arc::clone(report));
                let task = cx.spawn("grpc server", move |stop| {
                    let handler = |request: Request<Incoming>| async move { refuse(request.uri().path()) };
                    let (serving, report) = (Arc::clone(&serving), Arc::clone(&report));
                    async move {
                        let outcome = serving.run(Arc::new(handler), Arc::clone(&report), stop).await;
                        // What is not listened on any more is no trouble.
                        report(None);
                        outcome
                    }
                });
                Some(GrpcServer { listening, task })
            }
        }
    }

    /// Ends calls under way within the limit.
    pub(super) async fn drain(self) {
        self.task.stop().await;
    }
}

/// The answer to a call of a service that is not there.
fn refuse(path: &str) -> Response<ServerBody> {
    let service = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    let mut response = Response::new(empty_body());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from_static("12"));
    // A path has no characters that a header may not have.
    if let Ok(message) = HeaderValue::from_str(&format!("unknown service {service}")) {
        headers.insert("grpc-message", message);
    }
    response
}
