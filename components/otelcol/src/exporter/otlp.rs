//! `otelcol.exporter.otlp`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use corten_component::{Component, Context, Error, Services};
use corten_config::Arguments;
use corten_net::grpc::{Code, Status};
use corten_otlp::{Batch, OtlpSignal, PartialSuccess, RequestContext, RpcStatus};
use corten_signal::flow::BoxFuture;

use super::compression::{computed, sendable};
use super::grpc_client::{ConnectionArguments, GrpcClient, GrpcClientArguments};
use super::queue::QueueArguments;
use super::rejected::Rejected;
use super::retry::RetryArguments;
use super::sending::{Failure, Owner, Post, PreparedSending, Pushes, Sending, ServerName};
use crate::flow::{DebugMetrics, Inlets, Input};

/// Sends telemetry to a server over gRPC, in OpenTelemetry's own protocol.
///
/// What was received is sent as it is, without being decoded, unless a component on its way changed it.
///
/// Requests that fail for a reason that may pass are sent again: when the server cannot be reached, does not answer in time or
/// says `Canceled`, `DeadlineExceeded`, `Aborted`, `OutOfRange`, `Unavailable` or `DataLoss`, and for `ResourceExhausted` when
/// it says when to try again. What is given up is counted and logged.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct OtlpArguments {
    /// How long a request may take; 0 sets no limit.
    #[arg(default = "5s")]
    timeout: Duration,
    /// Keeps telemetry until it is sent.
    #[block(default)]
    sending_queue: QueueArguments,
    /// When a request that failed is sent again.
    #[block(default)]
    retry_on_failure: RetryArguments,
    /// Which metrics of its own the component has.
    #[block(default)]
    debug_metrics: DebugMetrics,
    /// How to talk to the server.
    #[block]
    client: GrpcClientArguments,
}

/// The component.
pub struct OtlpExporter {
    inlets: Arc<Inlets>,
    sending: Sending,
}

/// What is to be put in place.
pub struct Prepared {
    inlets: Arc<Inlets>,
    sending: PreparedSending,
}

/// What OpenTelemetry calls the component.
pub(crate) const TYPE: &str = "otlp";

impl Component for OtlpExporter {
    const NAME: &'static str = "otelcol.exporter.otlp";
    type Arguments = OtlpArguments;
    type Exports = Input;
    type Prepared = Prepared;

    async fn prepare(
        arguments: OtlpArguments,
        cx: &Context<Self>,
        current: Option<&Self>,
    ) -> Result<(Prepared, Input), Error> {
        let owner = Owner::of(cx, TYPE);
        let OtlpArguments { timeout, sending_queue, retry_on_failure, debug_metrics, client } = arguments;
        let names_peers = debug_metrics.names_peers();
        let pushes = pushes(&owner, &client.endpoint, &client.connection, timeout, names_peers, cx.services()).await?;
        let sending = current.map(|current| &current.sending);
        let sending = Sending::prepare(owner, pushes, &sending_queue, &retry_on_failure, sending).await?;
        let inlets = current.map_or_else(|| Inlets::of(cx.ledger()), |current| Arc::clone(&current.inlets));
        let exports = inlets.exports();
        Ok((Prepared { inlets, sending }, exports))
    }

    fn commit(current: Option<Self>, prepared: Prepared, cx: &Context<Self>) -> Self {
        let Prepared { inlets, sending } = prepared;
        let sending = Sending::commit(current.map(|current| current.sending), sending);
        sending.show(cx);
        inlets.attach(sending.stages());
        OtlpExporter { inlets, sending }
    }

    async fn drain(self, _: &Context<Self>) {
        self.inlets.close();
        self.sending.drain().await;
    }
}

/// What sends each of the signals to a server.
///
/// # Errors
///
/// What is wrong with the arguments.
pub(crate) async fn pushes(
    owner: &Owner,
    endpoint: &str,
    connection: &ConnectionArguments,
    timeout: Duration,
    names_peers: bool,
    services: &Services,
) -> Result<Pushes, Error> {
    let client = GrpcClient::new(endpoint, connection, timeout, services, owner, names_peers).await?;
    Ok(Pushes::all(&Arc::new(Otlp { client, rejected: Rejected::new(owner) })))
}

/// Sends export requests to a server.
struct Otlp {
    client: GrpcClient,
    rejected: Rejected,
}

fn method<S: OtlpSignal>() -> &'static str {
    match S::NAME {
        "traces" => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        "metrics" => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        _ => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    }
}

impl<S: OtlpSignal> Post<S> for Otlp {
    fn pack(self: Arc<Self>, batch: Batch<S::Record>) -> BoxFuture<'static, Result<Vec<Bytes>, Failure>> {
        let bytes = if self.client.packs() { batch.held_bytes() } else { 0 };
        Box::pin(async move {
            let packed = computed(bytes, move || self.client.pack(batch.message().cloned().collect()));
            sendable(packed.await)
        })
    }

    fn send<'a>(&'a self, body: Vec<Bytes>, context: &'a RequestContext) -> BoxFuture<'a, Result<usize, Failure>> {
        Box::pin(async move {
            let answer = self.client.call(method::<S>(), body, context).await.map_err(|status| failure(&status))?;
            match PartialSuccess::read::<S::Record>(&answer) {
                Ok(partial) => Ok(self.rejected.say::<S>(partial)),
                Err(error) => Err(failure(&Status::new(
                    Code::INTERNAL,
                    format!("grpc: failed to unmarshal the received message: {error}"),
                ))),
            }
        })
    }

    fn reads_context(&self) -> bool {
        self.client.reads_context()
    }

    fn server(&self) -> ServerName<'_> {
        self.client.server()
    }

    fn url(&self) -> String {
        self.client.url()
    }
}

/// What a status means for a request.
fn failure(status: &Status) -> Failure {
    let details = RpcStatus::read(&status.details).unwrap_or_default();
    let delay_max = Duration::from_secs(corten_net::RETRY_AFTER_SECONDS_MAX);
    let retry_delay = details.retry_delay_ms.map(|ms| Duration::from_millis(ms).min(delay_max));
    let passes = match status.code {
        Code::CANCELLED
        | Code::DEADLINE_EXCEEDED
        | Code::ABORTED
        | Code::OUT_OF_RANGE
        | Code::UNAVAILABLE
        | Code::DATA_LOSS => true,
        // The server can get over it only where it says so.
        Code::RESOURCE_EXHAUSTED => retry_delay.is_some(),
        _ => false,
    };
    Failure {
        permanent: !passes,
        after: retry_delay.filter(|delay| passes && !delay.is_zero()),
        kind: status.code.shown(),
        ..Failure::passing(status.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use corten_coding::Coding;
    use corten_component::Definition;
    use corten_net::{Listener, Peer, Secret, ServeOptions, ServerTls, TlsAcceptor, TlsSwitch};
    use corten_signal::{ConsumeError, Kind};
    use corten_testkit::{Unit, host, otlp, stays, until};
    use http::{HeaderMap, HeaderValue};
    use rcgen::{CertificateParams, KeyPair};
    use tokio::net::{TcpListener, UnixListener, UnixStream};

    use super::super::testing::{
        GrpcServer as Server, books, entrance, metric, numbers, refused, send, settles, start, with_header,
    };
    use super::*;
    use crate::auth::{AuthError, ClientAuth, Handler};

    const ID: &str = "otelcol.exporter.otlp.a";
    const DEFINITION: Definition = Definition::of::<OtlpExporter>();
    /// Whoever sends is told the outcome of one attempt.
    const DIRECT: &str = "sending_queue {\n enabled = false\n}\nretry_on_failure {\n enabled = false\n}\n";
    /// Retries follow each other at once.
    const SOON: &str = "retry_on_failure {\n initial_interval = \"1ms\"\n max_interval = \"1ms\"\n}\n";

    async fn exporter(body: &str) -> Unit {
        start(host(ID), &DEFINITION, body, &[]).await.unwrap()
    }

    fn status(code: Code, retry_delay_ms: Option<Option<u64>>) -> Status {
        let mut status = Status::new(code, "so it is");
        if let Some(retry_delay_ms) = retry_delay_ms {
            let rpc = RpcStatus { code: code.0, message: "so it is".into(), retry_delay_ms };
            status.details = rpc.encode().into();
        }
        status
    }

    #[tokio::test]
    async fn each_signal_has_its_method() {
        let server = Server::start().await;
        let unit = exporter(&server.client("")).await;
        let to = unit.world.consumer("input");
        let spans = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"a"}]}]}]}"#;
        to.traces.consume(otlp(spans)).await.unwrap();
        let points = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"a","gauge":{"dataPoints":[{"asInt":"1"}]}}]}]}]}"#;
        to.metrics.consume(otlp(points)).await.unwrap();
        send(&unit, 0..3).await.unwrap();
        until("all have arrived", || server.seen().len() == 3).await;
        let mut seen = server.seen();
        seen.sort_by_key(|seen| seen.path.clone());
        let paths: Vec<&str> = seen.iter().map(|seen| seen.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
                "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
                "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            ]
        );
        assert_eq!(numbers(&seen[0].message), [0, 1, 2]);
        assert_eq!(seen[0].header("grpc-encoding"), "gzip");
        assert_eq!(seen[0].header("user-agent"), "Corten/v0.0.0 (test; binary)");
        assert!(seen[0].header("grpc-timeout").ends_with('m'));
        until("all are counted", || metric(&unit, "rpc_client_call_duration_seconds_count") == 3.0).await;
        let text = unit.world.metrics().text();
        let line = "rpc_method=\"opentelemetry.proto.collector.logs.v1.LogsService/Export\",rpc_response_status_code=\"OK\",\
                    rpc_system_name=\"grpc\",server_address=\"127.0.0.1\"";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("rpc_grpc_status_code=\"0\",rpc_method=\"Export\""), "{text}");
        assert!(!text.contains("net_sock_peer_addr"));
    }

    #[tokio::test]
    async fn each_status_has_its_meaning() {
        let server = Server::start().await;
        let unit = exporter(&format!("{DIRECT}{}", server.client(""))).await;
        let ms = |ms| Some(Duration::from_millis(ms));
        for (said, passes, after) in [
            (status(Code::CANCELLED, None), true, None),
            (status(Code::UNKNOWN, None), false, None),
            (status(Code::INVALID_ARGUMENT, None), false, None),
            (status(Code::DEADLINE_EXCEEDED, None), true, None),
            (status(Code::NOT_FOUND, None), false, None),
            (status(Code::ALREADY_EXISTS, None), false, None),
            (status(Code::PERMISSION_DENIED, None), false, None),
            (status(Code::RESOURCE_EXHAUSTED, None), false, None),
            (status(Code::RESOURCE_EXHAUSTED, Some(None)), false, None),
            (status(Code::RESOURCE_EXHAUSTED, Some(Some(1500))), true, ms(1500)),
            (status(Code::RESOURCE_EXHAUSTED, Some(Some(0))), true, None),
            (status(Code::FAILED_PRECONDITION, None), false, None),
            (status(Code::ABORTED, None), true, None),
            (status(Code::OUT_OF_RANGE, None), true, None),
            (status(Code::UNIMPLEMENTED, None), false, None),
            (status(Code::INTERNAL, None), false, None),
            (status(Code::UNAVAILABLE, None), true, None),
            (status(Code::UNAVAILABLE, Some(Some(20))), true, ms(20)),
            (status(Code::UNAVAILABLE, Some(Some(u64::MAX))), true, ms(86_400_000)),
            (status(Code::DATA_LOSS, None), true, None),
            (status(Code::UNAUTHENTICATED, Some(Some(20))), false, None),
        ] {
            *server.says.lock() = Err(said.clone());
            let reason = format!("rpc error: code = {} desc = so it is", said.code.shown());
            let want = match passes {
                true => ConsumeError::Retry { after, reason },
                false => ConsumeError::Refused { reason },
            };
            assert_eq!(send(&unit, 0..1).await, Err(want), "{said:?}");
        }
        *server.says.lock() = Ok(b"\x0a\x06\x08\x03\x12\x02no".to_vec());
        send(&unit, 0..5).await.unwrap();
        let logged = unit.world.logs();
        assert!(logged.contains("msg=\"Partial success response\""), "{logged}");
        assert!(logged.contains("message=no dropped_log_records=3"), "{logged}");
        assert_eq!(metric(&unit, "corten_exporter_rejected_items_total"), 3.0);
        let want = "taken 5, out 5 | offered 5, delivered 2, dropped {rejected: 3}";
        assert_eq!(books(&unit, Kind::OtelLog), want);
        let end = unit.world.balance().ends.remove(0);
        assert_eq!(end.name, format!("{} (logs)", server.address));
        assert_eq!(end.url, format!("http://{}", server.address));
        assert_eq!(end.last_answer.map(|(_, text)| text).as_deref(), Some("partial success: 3 rejected"));
        assert_eq!(metric(&unit, "otelcol_exporter_sent_log_records_total"), 5.0);
        let text = unit.world.metrics().text();
        assert!(text.contains("error_permanent=\"false\",error_type=\"DataLoss\""), "{text}");
    }

    #[tokio::test]
    async fn messages_are_packed_as_they_are_told() {
        let server = Server::start().await;
        for (compression, name, coding) in [
            ("gzip", "gzip", Some(Coding::Gzip)),
            ("zstd", "zstd", Some(Coding::Zstd)),
            ("snappy", "snappy", Some(Coding::SnappyFramed)),
            ("none", "", None),
            ("", "", None),
        ] {
            let unit =
                exporter(&format!("{DIRECT}{}", server.client(&format!("compression = \"{compression}\"")))).await;
            for count in [3, 5000] {
                send(&unit, 0..count).await.unwrap();
                let seen = server.seen().pop().unwrap();
                assert_eq!(seen.header("grpc-encoding"), name);
                assert_eq!(seen.sent[0], u8::from(coding.is_some()));
                let message = seen.sent[5..].to_vec();
                let message = coding.map_or(Ok(message.clone()), |coding| coding.unpack(&message, 1 << 20)).unwrap();
                assert_eq!(numbers(&message), (0..count).collect::<Vec<_>>());
            }
        }
    }

    #[tokio::test]
    async fn an_outage_loses_nothing() {
        let server = Server::start().await;
        let unit = exporter(&format!("{SOON}sending_queue {{\n num_consumers = 3\n}}\n{}", server.client(""))).await;
        send(&unit, 0..1).await.unwrap();
        until("it has arrived", || server.seen().len() == 1).await;
        server.stop.send_replace(true);
        let address = server.address.to_string();
        until("the server is gone", || std::net::TcpStream::connect(&address).is_err()).await;
        for number in 1..20 {
            send(&unit, number..number + 1).await.unwrap();
        }
        stays("nothing is given up", Duration::from_millis(100), || {
            metric(&unit, "otelcol_exporter_send_failed_log_records_total") == 0.0
        })
        .await;
        let server = Server::at(&address).await;
        until("all are sent", || metric(&unit, "otelcol_exporter_sent_log_records_total") == 20.0).await;
        let mut all: Vec<usize> = server.seen().iter().flat_map(|seen| numbers(&seen.message)).collect();
        all.sort();
        assert_eq!(all, (1..20).collect::<Vec<_>>());
        settles(&unit, Kind::OtelLog, "taken 20, out 20 | offered 20, delivered 20").await;
    }

    #[tokio::test]
    async fn a_call_waits_for_a_connection_where_it_is_told_to() {
        let server = Server::start().await;
        let (address, client) = (server.address.to_string(), server.client("wait_for_ready = true"));
        let hasty = server.client("");
        server.stop.send_replace(true);
        until("the server is gone", || std::net::TcpStream::connect(&address).is_err()).await;
        let unit = exporter(&format!("{DIRECT}{hasty}")).await;
        let error = send(&unit, 0..1).await.unwrap_err();
        assert!(
            matches!(&error, ConsumeError::Retry { reason, .. } if reason.starts_with("rpc error: code = Unavailable desc = connection error: ")),
            "{error:?}"
        );
        let unit = exporter(&format!("{DIRECT}timeout = \"20s\"\n{client}")).await;
        let to = entrance(&unit);
        let waiting = tokio::spawn(async move { to.consume(super::super::testing::logs(0..1)).await });
        stays("it waits", Duration::from_millis(50), || !waiting.is_finished()).await;
        let _server = Server::at(&address).await;
        waiting.await.unwrap().unwrap();
        let unit = exporter(&format!("{DIRECT}timeout = \"50ms\"\nclient {{\n endpoint = \"127.0.0.1:1\"\n wait_for_ready = true\n tls {{\n insecure = true\n }}\n}}")).await;
        let error = send(&unit, 0..1).await.unwrap_err();
        assert!(
            matches!(&error, ConsumeError::Retry { reason, .. } if reason.contains("DeadlineExceeded")),
            "{error:?}"
        );
    }

    #[tokio::test]
    async fn a_server_that_hangs_takes_no_longer_than_it_may() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let unit = exporter(&format!(
            "{DIRECT}timeout = \"50ms\"\nclient {{\n endpoint = \"{address}\"\n tls {{\n insecure = true\n }}\n}}"
        ))
        .await;
        for _ in 0..4 {
            let error = send(&unit, 0..1).await.unwrap_err();
            assert!(
                matches!(&error, ConsumeError::Retry { reason, .. } if reason == "rpc error: code = DeadlineExceeded desc = context deadline exceeded"),
                "{error:?}"
            );
        }
    }

    /// Passes on a header of what the telemetry came with.
    #[derive(Debug)]
    struct Tenant {
        needs_tls: bool,
        is_for_grpc: bool,
    }

    impl ClientAuth for Tenant {
        fn authorize<'a>(
            &'a self,
            headers: &'a mut HeaderMap,
            context: &'a RequestContext,
        ) -> BoxFuture<'a, Result<(), AuthError>> {
            Box::pin(async move {
                for tenant in context.metadata.get("x-tenant") {
                    headers.insert("x-tenant", HeaderValue::from_str(tenant).unwrap());
                }
                Ok(())
            })
        }

        fn needs_tls(&self) -> bool {
            self.needs_tls
        }

        fn is_for_grpc(&self) -> bool {
            self.is_for_grpc
        }
    }

    #[tokio::test]
    async fn calls_carry_headers_credentials_and_authority() {
        let server = Server::start().await;
        let body = format!(
            "{DIRECT}{}",
            server.client("headers = {\"X-A\" = \"1\"}\nauthority = \"tempo.example.com\"\nauth = auth")
        );
        let with = |needs_tls, is_for_grpc| {
            Handler::new("otelcol.auth.test.a", Some(Arc::new(Tenant { needs_tls, is_for_grpc })), None)
        };
        let unit = start(host(ID), &DEFINITION, &body, &[("auth", with(false, true))]).await.unwrap();
        entrance(&unit).consume(with_header(0..1, "x-tenant", "t")).await.unwrap();
        let seen = &server.seen()[0];
        assert_eq!((seen.header("x-a"), seen.header("x-tenant")), ("1", "t"));
        assert_eq!(seen.authority, "tempo.example.com");
        let error = start(host(ID), &DEFINITION, &body, &[("auth", with(true, true))]).await.unwrap_err();
        assert_eq!(
            error,
            "grpc: the credentials require transport level security (use grpc.WithTransportCredentials() to set)"
        );
        let error = start(host(ID), &DEFINITION, &body, &[("auth", with(false, false))]).await.unwrap_err();
        assert_eq!(error, "requested authenticator is not a gRPC client authenticator");
    }

    #[tokio::test]
    async fn tls_is_on_unless_it_is_switched_off() {
        let server = Server::start().await;
        for scheme in ["", "http://", "https://"] {
            let insecure = if scheme == "https://" { "insecure = true" } else { "" };
            let unit = exporter(&format!(
                "{DIRECT}client {{\n endpoint = \"{scheme}{}\"\n tls {{\n ca_pem = \"\"\n insecure_skip_verify = true\n{insecure}\n }}\n}}",
                server.address
            ))
            .await;
            let error = send(&unit, 0..1).await.unwrap_err();
            assert!(error.to_string().contains("authentication handshake failed"), "{scheme}: {error}");
        }
        assert!(server.seen().is_empty());
    }

    #[tokio::test]
    async fn what_is_wrong_is_said() {
        for (client, text) in [
            ("endpoint = \"a:1\"", ""),
            ("endpoint = \"\"", "requires a non-empty \"endpoint\""),
            ("endpoint = \"a:b\"", "invalid port \"b\""),
            ("endpoint = \"a:1\"\ncompression = \"deflate\"", "unsupported compression type \"deflate\""),
            ("endpoint = \"a:1\"\ncompression = \"br\"", "unrecognized compression type \"br\""),
            ("endpoint = \"a:1\"\nbalancer_name = \"grpclb\"", "invalid balancer_name: grpclb"),
            (
                "endpoint = \"a:1\"\ntls {\n min_version = \"1.4\"\n}",
                "invalid TLS min_version: unsupported TLS version: \"1.4\"",
            ),
            ("endpoint = \"a:1\"\ntls {\n ca_pem = \"x\"\n}", "unable to use specified CA cert inline"),
        ] {
            let error = refused(ID, &DEFINITION, &format!("client {{\n{client}\n}}")).await;
            assert!(if text.is_empty() { error.is_empty() } else { error.contains(text) }, "{client}: {error}");
        }
    }

    #[tokio::test]
    async fn a_server_shows_who_it_is() {
        let key = KeyPair::generate().unwrap();
        let names = vec!["127.0.0.1".to_owned(), "tempo".to_owned()];
        let cert = CertificateParams::new(names).unwrap().self_signed(&key).unwrap().pem();
        let tls =
            ServerTls { cert_pem: cert.clone(), key_pem: Secret::new(key.serialize_pem()), ..ServerTls::default() };
        let tls = TlsSwitch::new(TlsAcceptor::new(tls).await.unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::with(listener, address, ServeOptions { tls, ..ServeOptions::default() });
        for (tls, works) in [
            (format!("ca_pem = {cert:?}"), true),
            (format!("ca_pem = {cert:?}\ninsecure = true"), true),
            (
                format!(
                    "ca_pem = {cert:?}\nserver_name = \"tempo\"\nmax_version = \"1.2\"\ncurve_preferences = [\"P256\"]"
                ),
                true,
            ),
            (format!("ca_pem = {cert:?}\nserver_name = \"loki\""), false),
            (format!("ca_pem = {cert:?}\ninclude_system_ca_certs_pool = true\nmin_version = \"1.3\""), true),
            ("insecure_skip_verify = true".to_owned(), true),
            (String::new(), false),
        ] {
            let body = format!("{DIRECT}client {{\n endpoint = \"{address}\"\n tls {{\n{tls}\n }}\n}}");
            let unit = exporter(&body).await;
            let sent = send(&unit, 0..1).await;
            assert_eq!(sent.is_ok(), works, "{tls}: {sent:?}");
        }
        assert_eq!(server.seen().len(), 5);
    }

    /// Takes connections of a socket in the file system.
    struct Socket(UnixListener);

    impl Listener for Socket {
        type Io = UnixStream;

        async fn accept(&mut self) -> io::Result<(UnixStream, Peer)> {
            let (stream, _) = self.0.accept().await?;
            Ok((stream, Peer::Network(([127, 0, 0, 1], 1).into())))
        }
    }

    #[tokio::test]
    async fn a_socket_in_the_file_system_is_a_server_too() {
        let world = host(ID);
        let path = world.path("otlp.sock");
        let listener = Socket(UnixListener::bind(&path).unwrap());
        let server = Server::with(listener, ([127, 0, 0, 1], 1).into(), ServeOptions::default());
        let body =
            format!("{DIRECT}client {{\n endpoint = \"unix://{}\"\n tls {{\n insecure = true\n }}\n}}", path.display());
        let unit = start(world, &DEFINITION, &body, &[]).await.unwrap();
        send(&unit, 0..2).await.unwrap();
        assert_eq!((numbers(&server.seen()[0].message), &*server.seen()[0].authority), (vec![0, 1], "localhost"));
    }
}
