//! `otelcol.exporter.loadbalancing`.

mod cloud_map;
mod endpoints;
mod identity;
mod keys;
mod kubernetes;
mod resolver;
mod ring;

use std::sync::Arc;
use std::time::Duration;

use corten_component::{Component, Context, DebugInfo, Error, Services, Task};
use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_config::schema::Stability;
use corten_net::ClientOptions;
use corten_net::kubernetes::Surroundings;
use http::HeaderValue;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::grpc_client::ConnectionArguments;
use super::otlp;
use super::queue::QueueArguments;
use super::retry::RetryArguments;
use super::sending::{Owner, PreparedSending, Pushes, Sending};
use crate::flow::{DebugMetrics, Inlets, Input, Stages};
use cloud_map::CloudMapResolver;
use endpoints::{Endpoints, LoadMetrics, Maker, PreparedEndpoints, Router};
use keys::Key;
use kubernetes::{KubernetesResolver, Slices};
use resolver::{Keeper, STATIC, Source, Watcher};

/// Sends telemetry to several servers over gRPC, in OpenTelemetry's own protocol, so that what belongs together goes to the
/// same one: the spans of a trace, for example, to the one that samples it.
///
/// Each server has a place of its own on a ring, by its name, and each key another; a key belongs to the next server. All that
/// have the same servers choose alike. When a server comes or goes, only the keys of about one server move.
///
/// There is a queue for each server, within `protocol`, and none before the choice, unless `sending_queue` says so. What waits
/// before the choice goes to another server when its own is gone; what waits for a server waits for it alone, and is sent
/// to it once more when it is not listed any more; with `storage` it stays on disk until the server is listed again.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct LoadBalancingArguments {
    /// What goes to the same server: `traceID` or `service`, for traces and logs; and for metrics, which are experimental,
    /// `service`, `resource`, `metric`, which is the name, or `streamID`, which is all that tells a series from others. Other
    /// signals are refused.
    #[arg(default = "traceID")]
    routing_key: String,
    /// How long it may take until the queues of the servers have a batch, or the servers themselves where there are no queues;
    /// 0 means five seconds.
    #[arg(default = "0s")]
    timeout: Duration,
    /// Where the servers are listed.
    #[block]
    resolver: ResolverArguments,
    /// How to talk to the servers.
    #[block]
    protocol: ProtocolArguments,
    /// Keeps telemetry until it was handed to the queues of the servers. Without the block there is no such queue.
    #[block]
    sending_queue: Option<QueueArguments>,
    /// When handing telemetry to the queues of the servers is tried again. Without the block it is not.
    #[block]
    retry_on_failure: Option<RetryArguments>,
    /// Which metrics of its own the component has.
    #[block(default)]
    debug_metrics: DebugMetrics,
}

/// Where the servers are listed. It is one of these.
#[derive(Arguments, Clone, Debug, PartialEq)]
struct ResolverArguments {
    /// In the configuration.
    #[block(name = "static")]
    fixed: Option<StaticResolver>,
    /// In the DNS.
    #[block]
    dns: Option<DnsResolver>,
    /// In Kubernetes.
    #[block]
    kubernetes: Option<KubernetesResolver>,
    /// In Cloud Map of AWS.
    #[block]
    aws_cloud_map: Option<CloudMapResolver>,
}

impl ResolverArguments {
    /// What is wrong with them.
    fn wrong(&self) -> Option<String> {
        let ResolverArguments { fixed, dns, kubernetes, aws_cloud_map } = self;
        let there = [fixed.is_some(), dns.is_some(), kubernetes.is_some(), aws_cloud_map.is_some()];
        match there.into_iter().filter(|there| *there).count() {
            0 => return Some("no resolvers specified for the exporter".to_owned()),
            1 => {}
            _ => return Some("only one resolver should be specified".to_owned()),
        }
        if fixed.as_ref().is_some_and(|fixed| fixed.hostnames.is_empty()) {
            return Some("no endpoints specified for the static resolver".to_owned());
        }
        if dns.as_ref().is_some_and(|dns| dns.hostname.is_empty()) {
            return Some("no hostname specified to resolve the backends".to_owned());
        }
        if let Some(kubernetes) = kubernetes {
            return kubernetes.named().err();
        }
        aws_cloud_map.as_ref()?.missing().map(str::to_owned)
    }

    /// Where endpoints are found that are not written in the configuration.
    fn source(self, services: &Services) -> Option<Source> {
        let user_agent = HeaderValue::try_from(&services.user_agent);
        let user_agent = user_agent.unwrap_or_else(|_| HeaderValue::from_static("corten"));
        let options = ClientOptions { user_agent, ..ClientOptions::default() };
        let ResolverArguments { fixed: _, dns, kubernetes, aws_cloud_map } = self;
        if let Some(dns) = dns {
            return Some(Source::Polled(resolver::dns(dns, resolver::system())));
        }
        if let Some(settings) = kubernetes {
            let slices = Slices { settings, surroundings: Surroundings::process(), options };
            return Some(Source::Slices(Box::new(slices)));
        }
        Some(Source::Polled(aws_cloud_map?.polled(options)))
    }
}

/// Servers that are listed in the configuration.
#[derive(Arguments, Clone, Debug, PartialEq)]
struct StaticResolver {
    /// The servers, `host:port`; without a port it is 4317.
    hostnames: Vec<String>,
}

/// Servers at the addresses of a host.
#[derive(Arguments, Clone, Debug, PartialEq)]
struct DnsResolver {
    /// The host. All of its addresses are servers.
    hostname: String,
    /// The port of the servers.
    #[arg(default = "4317")]
    port: String,
    /// How often the addresses are looked up; 0 means five seconds.
    #[arg(default = "5s")]
    interval: Duration,
    /// How long that may take; 0 means a second. The first time it may take longer.
    #[arg(default = "1s")]
    timeout: Duration,
}

/// How to talk to the servers.
#[derive(Arguments, Clone, Debug, PartialEq)]
struct ProtocolArguments {
    /// In OpenTelemetry's own protocol, over gRPC.
    #[block]
    otlp: OtlpProtocol,
}

/// OpenTelemetry's own protocol, over gRPC.
#[derive(Arguments, Clone, Debug, PartialEq)]
struct OtlpProtocol {
    /// How long a request may take; 0 sets no limit.
    #[arg(default = "5s")]
    timeout: Duration,
    /// Keeps telemetry of a server until it is sent.
    #[block(default)]
    queue: QueueArguments,
    /// When a request that failed is sent again to its server.
    #[block(default)]
    retry: RetryArguments,
    /// How to connect to the servers.
    #[block]
    client: ConnectionArguments,
}

/// How long handing on may take where nothing is said.
const TIMEOUT: Duration = Duration::from_secs(5);

impl LoadBalancingArguments {
    fn check(&self) -> Result<(), CheckErrors> {
        match Key::named(&self.routing_key) {
            Some(_) => Ok(()),
            None => Err(CheckErrors::of(&["routing_key"], format!("invalid routing key {:?}", self.routing_key))),
        }
    }

    fn check_build(&self, minimum: Stability) -> Result<(), CheckErrors> {
        let (takes_traces, takes_metrics) = self.takes(minimum);
        // Without any signal nothing is made that could refuse it.
        let signal = match (takes_traces, takes_metrics) {
            (true, _) => "traces",
            (false, true) => "metrics",
            (false, false) => return Ok(()),
        };
        match self.resolver.wrong() {
            None => Ok(()),
            Some(wrong) => {
                let text = format!("cannot configure loadbalancing {signal} exporter: {wrong}");
                Err(CheckErrors::of(&["resolver"], text))
            }
        }
    }

    fn key(&self) -> Key {
        Key::named(&self.routing_key).unwrap_or(Key::TraceId)
    }

    /// Whether it takes traces and logs, and metrics.
    fn takes(&self, minimum: Stability) -> (bool, bool) {
        let key = self.key();
        (key.is_of_traces(), key.is_of_metrics() && minimum == Stability::Experimental)
    }
}

/// What OpenTelemetry calls the component.
const TYPE: &str = "load_balancing";

/// The component.
pub struct LoadBalancingExporter {
    inlets: Arc<Inlets>,
    /// What is before the choice.
    sending: Sending,
    endpoints: Arc<Mutex<Endpoints>>,
    /// Looks endpoints up.
    task: Option<Task>,
}

/// What is to be put in place.
pub struct Prepared {
    inlets: Arc<Inlets>,
    sending: PreparedSending,
    /// The endpoints, which stay as they are meanwhile.
    endpoints: OwnedMutexGuard<Endpoints>,
    exporters: PreparedEndpoints,
    maker: Arc<Maker>,
    source: Option<Source>,
    takes: (bool, bool),
}

impl Component for LoadBalancingExporter {
    const NAME: &'static str = "otelcol.exporter.loadbalancing";
    type Arguments = LoadBalancingArguments;
    type Exports = Input;
    type Prepared = Prepared;

    async fn prepare(
        arguments: LoadBalancingArguments,
        cx: &Context<Self>,
        current: Option<&Self>,
    ) -> Result<(Prepared, Input), Error> {
        let (key, takes) = (arguments.key(), arguments.takes(cx.services().stability));
        if key.is_of_metrics() && !takes.1 {
            cx.logger().warn("disabling metrics exporter as stability level does not allow it", &[]);
        }
        let LoadBalancingArguments { timeout, resolver, protocol, sending_queue, retry_on_failure, .. } = arguments;
        let maker = Arc::new(Maker {
            owner: Owner::of(cx, otlp::TYPE),
            services: Arc::clone(cx.services()),
            otlp: protocol.otlp,
            names_peers: arguments.debug_metrics.names_peers(),
        });
        let reads_context = maker.check().await?;
        let endpoints = current.map_or_else(
            || Arc::new(Mutex::new(Endpoints::new(LoadMetrics::new(cx.metrics())))),
            |current| Arc::clone(&current.endpoints),
        );
        let endpoints = endpoints.lock_owned().await;
        // Those that were looked up stay until they are looked up again.
        let found = match &resolver.fixed {
            Some(fixed) => fixed.hostnames.clone(),
            None => endpoints.found().to_vec(),
        };
        let exporters = endpoints.prepare(found, &maker, true).await;
        let router = Arc::new(Router {
            key,
            timeout: if timeout.is_zero() { TIMEOUT } else { timeout },
            routes: endpoints.routes(),
            metrics: endpoints.metrics().clone(),
            logger: cx.logger().clone(),
            reads_context,
        });
        let off = QueueArguments { enabled: false, ..QueueArguments::default() };
        let never = RetryArguments { enabled: false, ..RetryArguments::default() };
        let sending = Sending::prepare(
            Owner::of(cx, TYPE),
            Pushes::all(&router),
            &sending_queue.unwrap_or(off),
            &retry_on_failure.unwrap_or(never),
            current.map(|current| &current.sending),
        )
        .await?;
        let inlets = current.map_or_else(|| Inlets::of(cx.ledger()), |current| Arc::clone(&current.inlets));
        let exports = inlets.exports();
        let source = resolver.source(cx.services());
        Ok((Prepared { inlets, sending, endpoints, exporters, maker, source, takes }, exports))
    }

    fn commit(current: Option<Self>, prepared: Prepared, cx: &Context<Self>) -> Self {
        let Prepared { inlets, sending, mut endpoints, exporters, maker, source, takes } = prepared;
        cx.show_debug_info(Arc::clone(endpoints.shown()) as Arc<dyn DebugInfo>);
        let sending = Sending::commit(
            current.map(|current| {
                // What it finds from now on is of no interest.
                drop(current.task);
                current.sending
            }),
            sending,
        );
        endpoints.commit(exporters);
        if source.is_none() {
            endpoints.metrics().resolved(STATIC, true);
            endpoints.metrics().updated(STATIC, endpoints.found().len());
        }
        let endpoints = Arc::clone(OwnedMutexGuard::mutex(&endpoints));
        let task = source.map(|source| {
            let keeper = Keeper { maker, endpoints: Arc::clone(&endpoints), logger: cx.logger().clone() };
            let watcher = Watcher { source, keeper };
            cx.spawn("resolver", move |stop| watcher.clone().run(stop))
        });
        let Stages { traces, metrics, logs } = sending.stages();
        let (takes_traces, takes_metrics) = takes;
        inlets.attach(Stages {
            traces: traces.filter(|_| takes_traces),
            metrics: metrics.filter(|_| takes_metrics),
            logs: logs.filter(|_| takes_traces),
        });
        LoadBalancingExporter { inlets, sending, endpoints, task }
    }

    async fn drain(self, _: &Context<Self>) {
        self.inlets.close();
        if let Some(task) = self.task {
            task.stop().await;
        }
        self.sending.drain().await;
        self.endpoints.lock().await.drain().await;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::IpAddr;

    use corten_component::{Definition, Stop};
    use corten_config::decode::{DecodeContext, decode};
    use corten_net::grpc::{Code, Status};
    use corten_otlp::{Batch, Span};
    use corten_signal::acks::{Answer, waiter};
    use corten_signal::flow::BoxFuture;
    use corten_signal::{ConsumeError, Kind};
    use corten_testkit::{Unit, World, host, otlp, stays, until};
    use parking_lot::Mutex as Lock;

    use super::super::testing::{GrpcServer as Server, books, metric, refused, settles, start};
    use super::ring::Ring;
    use super::*;

    pub(super) const ID: &str = "otelcol.exporter.loadbalancing.a";
    const DEFINITION: Definition = Definition::of::<LoadBalancingExporter>();
    /// Whoever sends is told the outcome of one attempt.
    pub(super) const DIRECT: &str = "queue {\n enabled = false\n}\nretry {\n enabled = false\n}\n";

    pub(super) fn fixed(addresses: &[String], otlp: &str, more: &str) -> String {
        format!(
            "resolver {{\n static {{\n hostnames = {addresses:?}\n }}\n}}\nprotocol {{\n otlp {{\n client {{\n tls {{\n insecure = true\n }}\n }}\n{otlp} }}\n}}\n{more}"
        )
    }

    async fn servers(count: usize) -> (BTreeMap<String, Server>, Vec<String>) {
        let mut servers = BTreeMap::new();
        for _ in 0..count {
            let server = Server::start().await;
            servers.insert(server.address.to_string(), server);
        }
        let addresses = servers.keys().cloned().collect();
        (servers, addresses)
    }

    async fn exporter(body: &str) -> Unit {
        start(host(ID), &DEFINITION, body, &[]).await.unwrap()
    }

    /// Two spans of each of these traces.
    pub(super) fn traces(ids: std::ops::Range<u8>) -> Batch<Span> {
        let span = |id: u8| format!(r#"{{"traceId":"{}","name":"s"}}"#, format!("{id:02x}").repeat(16));
        let spans: Vec<String> = ids.clone().chain(ids).map(span).collect();
        otlp(&format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{}]}}]}}]}}"#, spans.join(",")))
    }

    async fn send(unit: &Unit, ids: std::ops::Range<u8>) -> Result<(), ConsumeError> {
        unit.world.consumer("input").traces.consume(traces(ids)).await
    }

    /// The traces of the spans that a server has.
    pub(super) fn ids(server: &Server) -> Vec<u8> {
        let spans = server.seen().into_iter().flat_map(|seen| {
            let batch = Batch::<Span>::received(seen.message, Arc::default()).unwrap();
            let ids = batch
                .data()
                .flat_map(|data| data.scopes().flat_map(|(_, of)| &of.records).map(|span| span.trace_id[0]));
            ids.collect::<Vec<u8>>()
        });
        let mut ids: Vec<u8> = spans.collect();
        ids.sort_unstable();
        ids
    }

    /// What the servers at these addresses are to have of some traces: two spans each.
    pub(super) fn wanted(addresses: &[String], of: &str, ids: std::ops::Range<u8>) -> Vec<u8> {
        let ring = Ring::new(addresses);
        let ids = ids.filter(|id| addresses[ring.choose(&[*id; 16]).unwrap() as usize] == of);
        ids.flat_map(|id| [id, id]).collect()
    }

    #[tokio::test]
    async fn each_trace_goes_to_the_server_that_the_ring_says() {
        let (servers, mut addresses) = servers(3).await;
        addresses.reverse();
        let unit = exporter(&fixed(&addresses, DIRECT, "")).await;
        addresses.reverse();
        let (acks, mut told) = waiter();
        let mut batch = traces(0..60);
        batch.acks = acks;
        unit.world.consumer("input").traces.consume(batch).await.unwrap();
        assert_eq!(told.wait(Duration::from_secs(20)).await, Answer::Safe);
        for (address, server) in &servers {
            assert_eq!(ids(server), wanted(&addresses, address, 0..60));
            assert_eq!(server.seen().len(), 1, "what goes to one server is one request");
            let name = "github.com/open-telemetry/opentelemetry-collector-contrib/exporter/loadbalancingexporter";
            let line = format!(
                "otelcol_loadbalancer_backend_outcome_total{{endpoint=\"{address}\",\
                 otel_scope_name=\"{name}\",otel_scope_schema_url=\"\",otel_scope_version=\"\",success=\"true\"}} 1\n"
            );
            let text = unit.world.metrics().text();
            assert!(text.contains(&line), "{line} {text}");
        }
        assert_eq!(metric(&unit, "otelcol_exporter_sent_spans_total"), 120.0);
        assert_eq!(unit.world.balance_of(Kind::OtelTrace), "taken 120, out 120");
        let delivered: BTreeMap<String, u64> =
            unit.world.balance().ends.into_iter().map(|end| (end.name, end.delivered)).collect();
        let want = addresses.iter().map(|of| (format!("{of} (traces)"), wanted(&addresses, of, 0..60).len() as u64));
        assert_eq!(delivered, want.collect());
        assert_eq!(metric(&unit, "otelcol_loadbalancer_num_backends"), 3.0);
        assert_eq!(metric(&unit, "otelcol_loadbalancer_backend_latency_milliseconds_count"), 3.0);
        let text = unit.world.metrics().text();
        assert!(
            text.contains(&format!("otelcol_exporter_sent_spans_total{{exporter=\"load_balancing/{ID}\"")),
            "{text}"
        );
        assert!(!text.contains("otlp/"), "{text}");
    }

    #[tokio::test]
    async fn one_server_that_fails_does_not_keep_the_others_from_theirs() {
        let (servers, addresses) = servers(3).await;
        let down = &addresses[1];
        *servers[down].says.lock() = Err(Status::new(Code::UNAVAILABLE, "busy"));
        let unit = exporter(&fixed(&addresses, DIRECT, "")).await;
        let error = send(&unit, 0..40).await.unwrap_err();
        let busy = "rpc error: code = Unavailable desc = busy".to_owned();
        assert_eq!(error, ConsumeError::Retry { after: None, reason: busy });
        for address in [&addresses[0], &addresses[2]] {
            assert_eq!(ids(&servers[address]), wanted(&addresses, address, 0..40));
        }
        let lost = wanted(&addresses, down, 0..40).len() as f64;
        assert_eq!(metric(&unit, "otelcol_exporter_send_failed_spans_total"), lost);
        assert_eq!(metric(&unit, "otelcol_exporter_sent_spans_total"), 80.0 - lost);
        // Whoever sent it sends all of it again.
        let went = 80 - lost as u64;
        let want = format!("out {went}, created {{sent again: {went}}}");
        assert_eq!(unit.world.balance_of(Kind::OtelTrace), want);
        let refused = Status::new(Code::INVALID_ARGUMENT, "no");
        servers.values().for_each(|server| *server.says.lock() = Err(refused.clone()));
        let error = send(&unit, 0..40).await.unwrap_err();
        assert!(matches!(&error, ConsumeError::Refused { reason } if reason.matches("; ").count() == 2), "{error:?}");
    }

    #[tokio::test]
    async fn only_what_was_not_taken_is_tried_again() {
        let (servers, addresses) = servers(2).await;
        *servers[&addresses[0]].says.lock() = Err(Status::new(Code::UNAVAILABLE, "busy"));
        let retry = "retry_on_failure {\n initial_interval = \"1ms\"\n max_interval = \"1ms\"\n}\nsending_queue {}\n";
        let unit = exporter(&fixed(&addresses, DIRECT, retry)).await;
        send(&unit, 0..30).await.unwrap();
        until("it is tried again", || servers[&addresses[0]].seen().len() > 2).await;
        assert_eq!(servers[&addresses[1]].seen().len(), 1);
        *servers[&addresses[0]].says.lock() = Ok(Vec::new());
        until("all is sent", || metric(&unit, "otelcol_exporter_sent_spans_total") == 60.0).await;
        assert_eq!(servers[&addresses[1]].seen().len(), 1);
        let [a, b] = [0, 1].map(|at| wanted(&addresses, &addresses[at], 0..30).len());
        let (less, more) = (a.min(b), a.max(b));
        let ends = format!("offered {less}, delivered {less} | offered {more}, delivered {more}");
        settles(&unit, Kind::OtelTrace, &format!("taken 60, out 60 | {ends}")).await;
    }

    #[tokio::test]
    async fn what_waits_before_the_choice_goes_to_the_servers_that_there_are_then() {
        let (servers, addresses) = servers(2).await;
        let gone = "127.0.0.1:1".to_owned();
        let retry = "retry_on_failure {\n initial_interval = \"1ms\"\n max_interval = \"1ms\"\n}\nsending_queue {}\n";
        let mut unit = exporter(&fixed(&[gone], DIRECT, retry)).await;
        send(&unit, 0..30).await.unwrap();
        stays("it waits", Duration::from_millis(50), || metric(&unit, "otelcol_exporter_sent_spans_total") == 0.0)
            .await;
        assert_eq!(books(&unit, Kind::OtelTrace), "taken 60, held 60");
        unit.update(&fixed(&addresses, DIRECT, retry)).await.unwrap();
        until("all is sent", || metric(&unit, "otelcol_exporter_sent_spans_total") == 60.0).await;
        for (address, server) in &servers {
            assert_eq!(ids(server), wanted(&addresses, address, 0..30));
        }
        until("all is counted", || {
            unit.world.context::<LoadBalancingExporter>().ledger().snapshot().open_sums().is_empty()
        })
        .await;
        assert_eq!(unit.world.balance_of(Kind::OtelTrace), "taken 60, out 60");
        let text = unit.world.metrics().text();
        assert!(!text.contains("endpoint=\"127.0.0.1:1\""), "{text}");
    }

    #[tokio::test]
    async fn what_waits_for_a_server_that_is_gone_is_still_sent_to_it() {
        let (servers, addresses) = servers(2).await;
        let first = &servers[&addresses[0]];
        *first.says.lock() = Err(Status::new(Code::UNAVAILABLE, "busy"));
        let soon = "retry {\n initial_interval = \"1ms\"\n max_interval = \"1ms\"\n}\n";
        let mut unit = exporter(&fixed(&addresses[..1], soon, "")).await;
        let (acks, mut told) = waiter();
        let mut batch = traces(0..5);
        batch.acks = acks;
        unit.world.consumer("input").traces.consume(batch).await.unwrap();
        until("it is tried", || first.seen().len() > 1).await;
        *first.says.lock() = Ok(Vec::new());
        unit.update(&fixed(&addresses[1..], soon, "")).await.unwrap();
        send(&unit, 5..9).await.unwrap();
        assert_eq!(told.wait(Duration::from_secs(20)).await, Answer::Held);
        until("both have theirs", || {
            ids(first).ends_with(&[4, 4]) && ids(&servers[&addresses[1]]) == [5, 5, 6, 6, 7, 7, 8, 8]
        })
        .await;
        // The server that is gone is shown until it has what was for it.
        settles(&unit, Kind::OtelTrace, "taken 18, out 18 | offered 8, delivered 8").await;
    }

    #[tokio::test]
    async fn what_waits_for_a_server_is_sent_with_new_arguments_and_when_the_component_ends() {
        let (servers, addresses) = servers(1).await;
        let server = &servers[&addresses[0]];
        *server.says.lock() = Err(Status::new(Code::UNAVAILABLE, "busy"));
        let mut unit = exporter(&fixed(&addresses, "", "")).await;
        send(&unit, 0..1).await.unwrap();
        until("it is tried", || server.seen().len() == 1).await;
        *server.says.lock() = Ok(Vec::new());
        unit.update(&fixed(&addresses, "timeout = \"7s\"\n", "")).await.unwrap();
        until("it is tried again at once", || server.seen().len() == 2).await;
        *server.says.lock() = Err(Status::new(Code::UNAVAILABLE, "busy"));
        send(&unit, 1..2).await.unwrap();
        until("it is tried", || server.seen().len() == 3).await;
        *server.says.lock() = Ok(Vec::new());
        unit.drain().await;
        assert_eq!(server.seen().len(), 4);
    }

    #[tokio::test]
    async fn a_batch_waits_no_longer_than_it_may() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = listener.local_addr().unwrap().to_string();
        let (servers, mut addresses) = servers(1).await;
        addresses.push(silent);
        addresses.sort();
        let unit = exporter(&fixed(&addresses, DIRECT, "timeout = \"100ms\"")).await;
        let error = send(&unit, 0..30).await.unwrap_err();
        let reason = "context deadline exceeded".to_owned();
        assert_eq!(error, ConsumeError::Retry { after: None, reason });
        for (address, server) in &servers {
            let went = wanted(&addresses, address, 0..30);
            assert_eq!(ids(server), went);
            let went = went.len();
            let want = format!("out {went}, created {{sent again: {went}}} | offered {went}, delivered {went}");
            settles(&unit, Kind::OtelTrace, &want).await;
        }
    }

    #[tokio::test]
    async fn without_an_endpoint_whoever_sends_tries_again() {
        let body = fixed(&[], "", "").replace("static {\n hostnames = []", "dns {\n hostname = \"..\"");
        let mut unit = exporter(&body).await;
        let missing = |endpoint: &str| ConsumeError::Retry {
            after: None,
            reason: format!("couldn't find the exporter for the endpoint \"{endpoint}\""),
        };
        assert_eq!(send(&unit, 0..1).await, Err(missing("")));
        until("it is counted", || metric(&unit, "otelcol_loadbalancer_num_resolutions_total") > 0.0).await;
        unit.update(&fixed(&["a:b".to_owned()], "", "")).await.unwrap();
        assert_eq!(send(&unit, 0..1).await, Err(missing("a:b")));
        let logged = unit.world.logs();
        assert!(logged.contains("failed to create new exporter for endpoint"), "{logged}");
    }

    #[tokio::test]
    async fn the_addresses_of_a_host_are_endpoints() {
        let (servers, addresses) = servers(1).await;
        let (host, port) = addresses[0].split_once(':').unwrap();
        let body = fixed(&[], DIRECT, "")
            .replace("static {\n hostnames = []", &format!("dns {{\n hostname = \"{host}\"\n port = \"{port}\""));
        let unit = exporter(&body).await;
        until("it is found", || metric(&unit, "otelcol_loadbalancer_num_backends") == 1.0).await;
        until("it is used", || metric(&unit, "otelcol_loadbalancer_num_backend_updates_total") == 1.0).await;
        while send(&unit, 0..2).await.is_err() {
            tokio::task::yield_now().await;
        }
        assert_eq!(ids(&servers[&addresses[0]]), [0, 0, 1, 1]);
    }

    #[tokio::test]
    async fn endpoints_follow_what_is_looked_up() {
        let world = host(ID);
        let cx = world.context::<LoadBalancingExporter>();
        let endpoints = Arc::new(Mutex::new(Endpoints::new(LoadMetrics::new(cx.metrics()))));
        let answer: Arc<Lock<Result<Vec<IpAddr>, String>>> = Arc::new(Lock::new(Ok(Vec::new())));
        let says = Arc::clone(&answer);
        let otlp = arguments(&fixed(&[], "", "").replace("hostnames = []", "hostnames = [\"a\"]")).protocol.otlp;
        let maker =
            Maker { owner: Owner::of(&cx, otlp::TYPE), services: Arc::clone(cx.services()), otlp, names_peers: false };
        let settings = DnsResolver {
            hostname: "tempo".to_owned(),
            port: "4317".to_owned(),
            interval: Duration::from_millis(1),
            timeout: Duration::from_secs(1),
        };
        let lookup = move |_| {
            let answer = says.lock().clone();
            let looked: BoxFuture<'static, _> = Box::pin(async move { answer });
            looked
        };
        let watcher = Watcher {
            source: Source::Polled(resolver::dns(settings, Arc::new(lookup))),
            keeper: Keeper { maker: Arc::new(maker), endpoints: Arc::clone(&endpoints), logger: cx.logger().clone() },
        };
        let (stopper, stop) = Stop::pair();
        let running = tokio::spawn(watcher.run(stop));
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        let known = || endpoints.try_lock().map(|endpoints| endpoints.found().to_vec()).unwrap_or_default();
        *answer.lock() = Ok(addresses(&["10.0.0.2", "2001:db8::1", "10.0.0.1", "::ffff:10.0.0.2"]));
        let all = ["10.0.0.1:4317", "10.0.0.2:4317", "[2001:db8::1]:4317"];
        until("they are there", || known() == all).await;
        *answer.lock() = Err("lookup tempo: no such host".to_owned());
        until("it is said", || world.logs().contains("no such host")).await;
        until("they stay", || known() == all).await;
        *answer.lock() = Ok(addresses(&["10.0.0.3"]));
        until("they follow", || known() == ["10.0.0.3:4317"]).await;
        stopper.stop();
        running.await.unwrap().unwrap();
        endpoints.lock().await.drain().await;
    }

    pub(super) fn arguments(body: &str) -> LoadBalancingArguments {
        let parsed = corten_syntax::parse("test", &format!("component {{\n{body}\n}}"));
        let [corten_syntax::Stmt::Block(block)] = &*parsed.file.body else { panic!("{}", parsed.diagnostics) };
        let cx = DecodeContext { scope: &(), minimum: Stability::GenerallyAvailable };
        decode(block, &cx).map_err(|errors| errors.to_string()).unwrap().value
    }

    #[tokio::test]
    async fn signals_that_have_no_such_key_are_refused() {
        let (servers, addresses) = servers(1).await;
        let points = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"a","gauge":{"dataPoints":[{"asInt":"1"}]}}]}]}]}"#;
        let unsupported = || Err(ConsumeError::Retry { after: None, reason: "telemetry type is not supported".into() });
        for (key, stability, takes_spans, takes_points) in [
            ("traceID", Stability::Experimental, true, false),
            ("service", Stability::GenerallyAvailable, true, false),
            ("resource", Stability::GenerallyAvailable, false, false),
            ("resource", Stability::Experimental, false, true),
            ("metric", Stability::Experimental, false, true),
            ("streamID", Stability::Experimental, false, true),
        ] {
            let world = World::with(ID, |services| services.stability = stability);
            let body = fixed(&addresses, DIRECT, &format!("routing_key = \"{key}\""));
            let unit = start(world, &DEFINITION, &body, &[]).await.unwrap();
            let to = unit.world.consumer("input");
            let want = |takes| if takes { Ok(()) } else { unsupported() };
            assert_eq!(to.traces.consume(traces(0..1)).await, want(takes_spans), "{key}");
            assert_eq!(to.metrics.consume(otlp(points)).await, want(takes_points), "{key}");
            let said = unit.world.logs().contains("disabling metrics exporter as stability level does not allow it");
            assert_eq!(said, key != "traceID" && !takes_points, "{key}");
        }
        assert_eq!(servers[&addresses[0]].seen().len(), 5);
        let world = World::with(ID, |services| services.stability = Stability::Experimental);
        let unit =
            start(world, &DEFINITION, &fixed(&addresses, DIRECT, "routing_key = \"service\""), &[]).await.unwrap();
        let error = unit.world.consumer("input").metrics.consume(otlp(points)).await.unwrap_err();
        let reason = "unable to get service name from resource metric with attributes: map[]".to_owned();
        assert_eq!(error, ConsumeError::Refused { reason });
        assert_eq!(metric(&unit, "corten_loadbalancer_unroutable_points_total"), 1.0);
        assert_eq!(unit.world.balance_of(Kind::OtelMetric), "");
        let named = r#"{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"a"}}]},"scopeMetrics":[{"metrics":[{"name":"a","gauge":{"dataPoints":[{"asInt":"1"},{"asInt":"2"}]}}]}]}"#;
        let both = points.replacen("[{", &format!("[{named},{{"), 1);
        unit.world.consumer("input").metrics.consume(otlp(&both)).await.unwrap();
        let want = "taken 3, out 2, dropped {unroutable: 1} | offered 2, delivered 2";
        assert_eq!(books(&unit, Kind::OtelMetric), want);
    }

    #[tokio::test]
    async fn what_is_wrong_is_said() {
        let addresses = ["a:1".to_owned()];
        let good = fixed(&addresses, "", "");
        let other = |resolver: String| good.replace("static {\n hostnames = [\"a:1\"]\n }", &resolver);
        let of_service = |name: &str| other(format!("kubernetes {{\n service = {name:?}\n ports = []\n}}"));
        let of_cloud_map = |namespace: &str, service: &str, health: &str| {
            let named = format!("namespace = {namespace:?}\n service_name = {service:?}\n health_status = {health:?}");
            other(format!("aws_cloud_map {{\n {named}\n port = 4317\n}}"))
        };
        for (body, text) in [
            (good.clone(), ""),
            (fixed(&addresses, "", "routing_key = \"attributes\""), "invalid routing key \"attributes\""),
            (
                fixed(&[], "", ""),
                "cannot configure loadbalancing traces exporter: no endpoints specified for the static resolver",
            ),
            (
                good.replace("static {", "dns {\n hostname = \"b\"\n }\n static {"),
                "cannot configure loadbalancing traces exporter: only one resolver should be specified",
            ),
            (
                good.replace("static {\n hostnames = [\"a:1\"]\n }", ""),
                "cannot configure loadbalancing traces exporter: no resolvers specified for the exporter",
            ),
            (
                good.replace("static {\n hostnames = [\"a:1\"]", "dns {\n hostname = \"\""),
                "cannot configure loadbalancing traces exporter: no hostname specified to resolve the backends",
            ),
            (of_service("a"), ""),
            (of_service("a."), ""),
            (of_service("a.b.svc.cluster.local"), ""),
            (
                of_service(""),
                "cannot configure loadbalancing traces exporter: no service specified to resolve the backends",
            ),
            (of_service(".b"), "no service specified to resolve the backends"),
            (of_service("a..svc.c"), "invalid Kubernetes service FQDN: namespace segment missing in \"a..svc.c\""),
            (of_service("a.b.c"), "invalid Kubernetes service FQDN: expected third DNS label to be 'svc' in \"a.b.c\""),
            (of_service("a.b.svc"), "invalid Kubernetes service FQDN: missing cluster domain in \"a.b.svc\""),
            (of_cloud_map("n", "s", "HEALTHY_OR_ELSE_ALL"), ""),
            (
                of_cloud_map("", "", "ALL"),
                "cannot configure loadbalancing traces exporter: no Cloud Map namespace specified to resolve the backends",
            ),
            (of_cloud_map("n", "", "ALL"), "no Cloud Map service_name specified to resolve the backends"),
            (of_cloud_map("n", "s", "healthy"), "invalid health status \"healthy\""),
            (good.replace("insecure = true", "ca_pem = \"x\""), "unable to use specified CA cert inline"),
            (fixed(&addresses, "queue {\n queue_size = 0\n}\n", ""), "queue_size must be greater than zero"),
            (good.replace("protocol", "protocols"), "protocol"),
        ] {
            let error = refused(ID, &DEFINITION, &body).await;
            assert!(if text.is_empty() { error.is_empty() } else { error.contains(text) }, "{body}: {error}");
        }
    }
}
