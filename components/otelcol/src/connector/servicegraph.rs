//! `otelcol.connector.servicegraph`.

mod graph;

use std::sync::Arc;
use std::time::Duration;

use corten_component::{Context, Error, Task};
use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_config::decode::SignedDuration;
use corten_config::schema::Stability;

use self::graph::{Graph, OwnMetrics, Settings};
use super::durations::Ranges;
use super::traces_to_metrics::{Connector, TracesToMetrics, check_output};
use crate::flow::{DebugMetrics, Output};

/// Finds out which services call which, from the two spans of each request: that of the client, and that of the server,
/// whose parent it is. Sends the requests between services as metrics, whose attributes are `client`, `server`,
/// `connection_type`, `failed` and the dimensions that are set:
///
/// - `traces_service_graph_request_total` and `traces_service_graph_request_failed_total`, sums;
/// - `traces_service_graph_request_server` and `traces_service_graph_request_client`, histograms of seconds as the server and
///   the client saw them.
///
/// All spans of a trace have to come here. A span waits for the other one in memory, and spans are safe for their senders as
/// soon as they wait or are counted. Counts go on over a change of the configuration that does not change the series. A
/// series without a request for 15 minutes is forgotten. There are 262,144 series at most, and 256 MiB of them; requests that
/// would make further ones are dropped and counted.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct ServiceGraphArguments {
    /// Upper ends of the ranges of the histograms but the last.
    #[arg(default = ["2ms", "4ms", "6ms", "8ms", "10ms", "50ms", "100ms", "200ms", "400ms", "800ms", "1s", "1400ms", "2s", "5s", "10s", "15s"])]
    latency_histogram_buckets: Vec<SignedDuration>,
    /// Further attributes of metrics: those of the resource or, if it has none, of the span, as `client_` and `server_` with
    /// their names.
    #[arg(default = [])]
    dimensions: Vec<String>,
    /// How often series are looked for that had no request for 15 minutes.
    #[arg(default = "1m")]
    cache_loop: SignedDuration,
    /// How often spans are looked for that waited too long.
    #[arg(default = "2s")]
    store_expiration_loop: SignedDuration,
    /// Attributes of a client's span that tell who the server is where there is no span of the server; the first that is
    /// there counts. Where there is none of the client, the client is `user`. If the list is empty, such spans do not count.
    #[arg(default = ["peer.service", "db.name", "db.system"])]
    virtual_node_peer_attributes: Vec<String>,
    /// Whether series have the attribute `virtual_node`, which says which side had no span: `client`, `server` or nothing.
    #[arg(default = false)]
    virtual_node_extra_label: bool,
    /// How often metrics are sent; 0 is with every batch of spans.
    #[arg(default = "60s")]
    metrics_flush_interval: SignedDuration,
    /// Attributes that name a database; a client's span that has one is a request to it and waits for no other.
    #[arg(default = ["db.name"])]
    database_name_attributes: Vec<String>,
    /// How many ranges histograms have at most that grow exponentially; 0 is to use `latency_histogram_buckets`.
    #[arg(default = 0)]
    exponential_histogram_max_size: i64,
    /// How spans wait.
    #[block(default)]
    store: Store,
    /// Where to send metrics. Consumers of logs and traces get nothing.
    #[block]
    output: Output,
    /// Which metrics of its own the component has.
    #[block(optional)]
    debug_metrics: DebugMetrics,
}

/// How spans wait.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct Store {
    /// How many spans wait for another one at most, and 64 MiB in any case; further ones are dropped and counted.
    #[arg(default = 1000)]
    max_items: i64,
    /// How long a span waits for another one.
    #[arg(default = "2s")]
    ttl: SignedDuration,
}

impl ServiceGraphArguments {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        for (holds, field, message) in [
            (self.cache_loop.nanoseconds > 0, "cache_loop", "cache_loop must be greater than 0"),
            (
                self.store_expiration_loop.nanoseconds > 0,
                "store_expiration_loop",
                "store_expiration_loop must be greater than 0",
            ),
            (self.store.max_items > 0, "store", "store.max_items must be greater than 0"),
            (self.store.ttl.nanoseconds > 0, "store", "store.ttl must be greater than 0"),
        ] {
            errors.require(holds, &[field], message);
        }
        errors.into_result()
    }

    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        check_output(&self.output)
    }

    fn settings(&self) -> Settings {
        let ranges = match self.exponential_histogram_max_size {
            0 => {
                let bounds = self.latency_histogram_buckets.iter();
                Ranges::Explicit(bounds.map(|bound| bound.nanoseconds as f64 / 1e9).collect())
            }
            // A size below 0 is none.
            size => Ranges::Exponential(u32::try_from(size).unwrap_or(160)),
        };
        let databases = &self.database_name_attributes;
        Settings {
            ranges,
            dimensions: self.dimensions.clone(),
            peers: self.virtual_node_peer_attributes.clone(),
            with_virtual: self.virtual_node_extra_label,
            databases: if databases.is_empty() { vec!["db.name".to_owned()] } else { databases.clone() },
            edges_max: usize::try_from(self.store.max_items).unwrap_or_default(),
            age_max: duration(self.store.ttl),
        }
    }
}

/// A span of time that may not be negative.
fn duration(given: SignedDuration) -> Duration {
    Duration::from_nanos(given.nanoseconds.max(0).unsigned_abs())
}

/// The component.
pub(crate) type ServiceGraphConnector = TracesToMetrics<ServiceGraph>;

/// What it is made of.
pub(crate) struct ServiceGraph;

impl Connector for ServiceGraph {
    const NAME: &'static str = "otelcol.connector.servicegraph";
    const FAILED: &'static str = "failed to flush metrics";
    type Arguments = ServiceGraphArguments;
    type Settings = Settings;
    type State = Graph;

    fn output(arguments: &ServiceGraphArguments) -> &Output {
        &arguments.output
    }

    fn interval(arguments: &ServiceGraphArguments) -> Duration {
        duration(arguments.metrics_flush_interval)
    }

    fn settings(arguments: &ServiceGraphArguments, _: &Context<ServiceGraphConnector>) -> Result<Settings, Error> {
        Ok(arguments.settings())
    }

    fn state(settings: Settings, cx: &Context<ServiceGraphConnector>) -> Graph {
        Graph::new(settings, OwnMetrics::new(cx))
    }

    fn fits(graph: &Graph, settings: &Settings) -> bool {
        graph.fits(settings)
    }

    fn go_on(graph: &Graph, settings: Settings) {
        graph.go_on(settings);
    }

    fn tasks(arguments: &ServiceGraphArguments, graph: &Arc<Graph>, cx: &Context<ServiceGraphConnector>) -> Vec<Task> {
        if arguments.metrics_flush_interval.nanoseconds <= 0 {
            cx.logger().warn(
                "MetricsFlushInterval is set to 0, metrics will be flushed on every received batch of traces",
                &[],
            );
        }
        let every = |name: &str, interval: SignedDuration, work: fn(&Graph)| {
            let (graph, interval) = (Arc::clone(graph), duration(interval));
            cx.spawn(name, move |mut stop| {
                let graph = Arc::clone(&graph);
                async move {
                    while stop.sleep(interval).await {
                        work(&graph);
                    }
                    Ok(())
                }
            })
        };
        vec![
            every("expire", arguments.store_expiration_loop, Graph::expire),
            every("forget", arguments.cache_loop, Graph::forget),
        ]
    }
}

#[cfg(test)]
mod tests {
    use corten_otlp::Span;
    use corten_testkit::{OtlpSink, Unit, otlp, until};
    use serde_json::Value as Json;

    use super::*;
    use crate::testing::{self, Compared, start, with_output};

    #[tokio::test(start_paused = true)]
    async fn metrics_are_those_of_the_reference() {
        testing::replay::<ServiceGraphConnector>(
            include_str!("../../tests/data/connector_servicegraph.json"),
            Compared::WithoutTimes,
        )
        .await;
    }

    /// The two spans of a request, or one of them.
    async fn send(unit: &Unit, request: u32, client: bool, server: bool) {
        let of = |service: &str, span: String| {
            format!(
                r#"{{"resource":{{"attributes":[{{"key":"service.name","value":{{"stringValue":"{service}"}}}}]}},
                "scopeSpans":[{{"spans":[{span}]}}]}}"#
            )
        };
        let mut resources = Vec::new();
        if client {
            resources
                .push(of("front", format!(r#"{{"traceId":"{request:032x}","spanId":"{request:016x}","kind":3}}"#)));
        }
        if server {
            let span = format!(r#"{{"traceId":"{request:032x}","parentSpanId":"{request:016x}","kind":2}}"#);
            resources.push(of("back", span));
        }
        let json = format!(r#"{{"resourceSpans":[{}]}}"#, resources.join(","));
        unit.world.consumer("input").traces.consume(otlp::<Span>(&json)).await.unwrap();
    }

    fn own(unit: &Unit, name: &str) -> Option<f64> {
        let scope = "github.com/open-telemetry/opentelemetry-collector-contrib/connector/servicegraphconnector";
        let labels = [("otel_scope_name", scope), ("otel_scope_version", ""), ("otel_scope_schema_url", "")];
        unit.world.metrics().get(&format!("otelcol_connector_servicegraph_{name}_total"), &labels)
    }

    /// Start and value of the requests of a batch.
    fn requests(sink: &OtlpSink, batch: usize) -> Vec<(u64, u64)> {
        let json: Json = serde_json::from_str(&sink.batches()[batch].json).unwrap();
        let metric = &json["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0];
        assert_eq!(metric["name"], "traces_service_graph_request_total");
        let number = |point: &Json, name: &str| point[name].as_str().unwrap().parse().unwrap();
        let points = metric["sum"]["dataPoints"].as_array().unwrap();
        points.iter().map(|point| (number(point, "startTimeUnixNano"), number(point, "asInt"))).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn spans_wait_for_each_other_up_to_a_limit() {
        let sink = OtlpSink::default();
        let unit =
            start::<ServiceGraphConnector>(&sink, "virtual_node_peer_attributes = []\nstore {\n max_items = 2\n}")
                .await
                .unwrap();
        for request in 1..=4 {
            send(&unit, request, true, false).await;
        }
        for request in 1..=4 {
            send(&unit, request, false, true).await;
        }
        until("it is flushed", || sink.batches().len() == 1).await;
        assert_eq!(requests(&sink, 0)[0].1, 2);
        assert_eq!(own(&unit, "dropped_spans"), Some(2.0));
        assert_eq!(testing::told(&unit.world), ["series = 1", "waiting_requests = 0"]);
        let spans = unit.world.balance_of(corten_signal::Kind::OtelTrace);
        assert_eq!(spans, "taken 8, dropped {no room: 2}, merged {otel_metric: 6}");
        assert_eq!((own(&unit, "total_edges"), own(&unit, "expired_edges")), (Some(4.0), Some(2.0)));
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_interval_metrics_go_with_every_batch() {
        let sink = OtlpSink::default();
        let unit = start::<ServiceGraphConnector>(&sink, "metrics_flush_interval = \"0s\"").await.unwrap();
        send(&unit, 1, true, false).await;
        assert_eq!(sink.batches().len(), 0);
        send(&unit, 1, false, true).await;
        assert_eq!((sink.batches().len(), requests(&sink, 0)[0].1), (1, 1));
        sink.answer_with(Some(corten_signal::ConsumeError::Refused { reason: "never".into() }));
        send(&unit, 2, true, true).await;
        let points = unit.world.balance_of(corten_signal::Kind::OtelMetric);
        assert_eq!(points, "out 3, created {otel_trace: 6}, dropped {refused: 3}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_series_that_is_forgotten_begins_anew() {
        let sink = OtlpSink::default();
        let unit = start::<ServiceGraphConnector>(&sink, "").await.unwrap();
        send(&unit, 1, true, true).await;
        send(&unit, 2, true, true).await;
        tokio::time::sleep(Duration::from_secs(17 * 60 + 30)).await;
        let flushes = sink.batches().len();
        assert!((15..=16).contains(&flushes), "{flushes}");
        send(&unit, 3, true, true).await;
        until("it is flushed", || sink.batches().len() == flushes + 1).await;
        let (before, after) = (requests(&sink, flushes - 1)[0], requests(&sink, flushes)[0]);
        assert_eq!((before.1, after.1), (2, 1));
        assert!(after.0 > before.0);
    }

    #[tokio::test(start_paused = true)]
    async fn counts_and_spans_that_wait_stay_over_a_change_that_makes_the_same_series() {
        let sink = OtlpSink::default();
        let mut unit = start::<ServiceGraphConnector>(&sink, "").await.unwrap();
        send(&unit, 1, true, true).await;
        send(&unit, 2, true, false).await;
        unit.update(&with_output("metrics_flush_interval = \"30s\"")).await.unwrap();
        send(&unit, 2, false, true).await;
        unit.update(&with_output("dimensions = [\"x\"]")).await.unwrap();
        send(&unit, 3, true, true).await;
        unit.drain().await;
        let counts: Vec<u64> = (0..sink.batches().len()).map(|batch| requests(&sink, batch)[0].1).collect();
        assert!(counts.contains(&2) && counts.last() == Some(&1), "{counts:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn spans_and_series_are_bounded_in_bytes() {
        let sink = OtlpSink::default();
        let body = "virtual_node_peer_attributes = []\nstore {\n max_items = 100000\n}";
        let unit = start::<ServiceGraphConnector>(&sink, body).await.unwrap();
        let span = |request: u32, service: &str, kind: u32| {
            otlp::<Span>(&format!(
                r#"{{"resourceSpans":[{{"resource":{{"attributes":[{{"key":"service.name","value":{{"stringValue":"{service}"}}}}]}},
                "scopeSpans":[{{"spans":[{{"traceId":"{request:032x}","spanId":"{request:016x}",
                "parentSpanId":"{request:016x}","kind":{kind}}}]}}]}}]}}"#
            ))
        };
        let to = unit.world.consumer("input").traces;
        for request in 1..=70 {
            to.consume(span(request, &format!("{request}{}", "x".repeat(1 << 20)), 3)).await.unwrap();
        }
        assert_eq!(own(&unit, "dropped_spans"), Some(7.0));
        for round in 0..6 {
            for request in 1..=63 {
                let client = round * 100 + request;
                to.consume(span(client, &format!("{client}{}", "x".repeat(1 << 20)), 3)).await.unwrap();
                to.consume(span(client, "back", 2)).await.unwrap();
            }
        }
        let dropped = own(&unit, "dropped_spans").unwrap() - 7.0;
        assert!((100.0..260.0).contains(&dropped), "{dropped}");
        unit.world.balance();
    }

    #[tokio::test]
    async fn what_contradicts_itself_is_refused() {
        for (body, want) in [
            ("cache_loop = \"0s\"", "cache_loop must be greater than 0"),
            ("store_expiration_loop = \"-1s\"", "store_expiration_loop must be greater than 0"),
            ("store {\n max_items = -1\n}", "store.max_items must be greater than 0"),
            ("store {\n ttl = \"0s\"\n}", "store.ttl must be greater than 0"),
        ] {
            let error = start::<ServiceGraphConnector>(&OtlpSink::default(), body).await.unwrap_err();
            assert!(error.contains(want), "{error}");
        }
    }
}
