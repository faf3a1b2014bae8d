//! `otelcol.connector.host_info`.

use std::time::Duration;

use corten_component::{Context, Error, Logger};
use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_config::decode::SignedDuration;
use corten_config::schema::Stability;
use corten_otlp::metrics::{Metric, Number, NumberPoint, Points};
use corten_otlp::{Batch, Data, Map, OfResource, OfScope, Scope, Span, Text, Value};
use corten_signal::ledger::{Pass, Row};
use indexmap::IndexSet;
use parking_lot::Mutex;

use super::traces_to_metrics::{Connector, Observe, TracesToMetrics, check_output};
use crate::flow::{DebugMetrics, Output};
use crate::periodic::{Collect, now_ns};

/// Says which hosts spans come from: sends the gauge `traces_host_info` with the value 1 for each of them, whose attribute
/// `grafana.host.id` is what identifies the host.
///
/// Spans are safe for their senders as soon as they were looked at. Between two flushes 100,000 hosts are known at most, and
/// 64 MiB of what identifies them; the log says so when there are more.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct HostInfoArguments {
    /// Attributes of resources that identify hosts. Each one that a resource has counts.
    #[arg(default = ["host.id"])]
    host_identifiers: Vec<String>,
    /// How often the hosts are sent from which there were spans since the last time.
    #[arg(default = "60s")]
    metrics_flush_interval: SignedDuration,
    /// Where to send metrics. Consumers of logs and traces get nothing.
    #[block]
    output: Output,
    /// Which metrics of its own the component has.
    #[block(optional)]
    debug_metrics: DebugMetrics,
}

impl HostInfoArguments {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        errors.require(!self.host_identifiers.is_empty(), &["host_identifiers"], "host_identifiers must not be empty");
        errors.require(
            self.metrics_flush_interval.nanoseconds > 0,
            &["metrics_flush_interval"],
            "metrics_flush_interval must be greater than 0",
        );
        errors.into_result()
    }

    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        check_output(&self.output)
    }
}

/// How many hosts there are between two flushes at most.
const HOSTS_MAX: usize = 100_000;
/// How much memory what identifies them takes at most, in bytes.
const BYTES_MAX: usize = 64 << 20;
/// What a host takes besides its identifier, about, in bytes.
const OVERHEAD_BYTES: usize = 64;

/// The component.
pub(crate) type HostInfoConnector = TracesToMetrics<HostInfo>;

/// What it is made of.
pub(crate) struct HostInfo;

/// The hosts since the last flush.
pub(crate) struct Hosts {
    logger: Logger,
    inner: Mutex<Inner>,
}

struct Inner {
    identifiers: Vec<String>,
    hosts: IndexSet<Box<[u8]>>,
    bytes: usize,
    is_full: bool,
}

impl Connector for HostInfo {
    const NAME: &'static str = "otelcol.connector.host_info";
    const FAILED: &'static str = "Error consuming metrics";
    type Arguments = HostInfoArguments;
    type Settings = Vec<String>;
    type State = Hosts;

    fn output(arguments: &HostInfoArguments) -> &Output {
        &arguments.output
    }

    fn interval(arguments: &HostInfoArguments) -> Duration {
        Duration::from_nanos(arguments.metrics_flush_interval.nanoseconds.unsigned_abs())
    }

    fn settings(arguments: &HostInfoArguments, _: &Context<HostInfoConnector>) -> Result<Vec<String>, Error> {
        Ok(arguments.host_identifiers.clone())
    }

    fn state(identifiers: Vec<String>, cx: &Context<HostInfoConnector>) -> Hosts {
        let inner = Inner { identifiers, hosts: IndexSet::new(), bytes: 0, is_full: false };
        Hosts { logger: cx.logger().clone(), inner: Mutex::new(inner) }
    }

    fn fits(_: &Hosts, _: &Vec<String>) -> bool {
        true
    }

    fn go_on(hosts: &Hosts, identifiers: Vec<String>) {
        hosts.inner.lock().identifiers = identifiers;
    }
}

impl Hosts {
    fn add(&self, inner: &mut Inner, host: &[u8]) {
        if inner.hosts.contains(host) {
            return;
        }
        let bytes = inner.bytes + host.len() + OVERHEAD_BYTES;
        if inner.hosts.len() < HOSTS_MAX && bytes <= BYTES_MAX {
            inner.bytes = bytes;
            inner.hosts.insert(host.into());
        } else if !std::mem::replace(&mut inner.is_full, true) {
            let fields = [("hosts", inner.hosts.len().into()), ("bytes", inner.bytes.into())];
            self.logger.warn("too many hosts: further ones are left out until the next flush", &fields);
        }
    }
}

impl Observe for Hosts {
    fn observe(&self, batch: &Batch<Span>, _: &mut Pass<'_>) -> usize {
        let parts: Vec<_> = batch.data().collect();
        let mut inner = self.inner.lock();
        let identifiers = inner.identifiers.clone();
        for data in parts {
            for of in data.resources.iter().filter(|of| !of.scopes.is_empty()) {
                for identifier in &identifiers {
                    match data.arena.get(of.resource.attributes, identifier.as_bytes()) {
                        Some(Value::Str(host)) => self.add(&mut inner, data.arena.bytes(host)),
                        Some(other) => self.add(&mut inner, data.arena.to_text(other).as_bytes()),
                        None => {}
                    }
                }
            }
        }
        // Hosts are left out where there are too many, not spans.
        0
    }

    fn counts(&self) -> Vec<(&'static str, usize)> {
        vec![("hosts", self.inner.lock().hosts.len())]
    }
}

impl Collect for Hosts {
    type Kept = IndexSet<Box<[u8]>>;

    fn collect(&self) -> Option<(Batch<Metric>, Self::Kept)> {
        let hosts = {
            let mut inner = self.inner.lock();
            inner.is_full = false;
            inner.bytes = 0;
            std::mem::take(&mut inner.hosts)
        };
        if hosts.is_empty() {
            return None;
        }
        let mut data = Data::default();
        let (arena, now_ns) = (&mut data.arena, now_ns());
        let key = arena.own(b"grafana.host.id");
        let mut point = |host: &[u8]| {
            let mut attributes = Map::default();
            let host = Value::Str(arena.own(host));
            arena.push(&mut attributes, key, host);
            NumberPoint {
                attributes,
                start_time_ns: now_ns,
                time_ns: now_ns,
                value: Number::Int(1),
                ..NumberPoint::default()
            }
        };
        let points = Points::Gauge(hosts.iter().map(|host| point(host)).collect());
        let metric = Metric { name: arena.own(b"traces_host_info"), points, ..Metric::default() };
        let scope = Scope { name: arena.own(b"hostinfoconnector"), ..Scope::default() };
        let scopes = vec![OfScope { scope, schema_url: Text::EMPTY, records: vec![metric] }];
        data.resources.push(OfResource { scopes, ..OfResource::default() });
        Some((Batch::of(data, Default::default()), hosts))
    }

    fn put_back(&self, _: Batch<Metric>, kept: Self::Kept, _: &Row) {
        let mut inner = self.inner.lock();
        kept.iter().for_each(|host| self.add(&mut inner, host));
    }
}

#[cfg(test)]
mod tests {
    use corten_component::Definition;
    use corten_signal::ConsumeError;
    use corten_testkit::{OtlpSink, Unit, host, otlp, stays, until};
    use serde_json::Value as Json;

    use super::*;

    async fn start(sink: &OtlpSink, body: &str) -> Result<Unit, String> {
        let definition = Definition::of::<HostInfoConnector>();
        let body = format!("{body}\noutput {{\n metrics = [sink]\n}}");
        Unit::start_with(host("otelcol.connector.host_info.a"), &definition, &body, &[("sink", sink.value())]).await
    }

    /// Spans of resources with these attributes, of JSON.
    async fn send(unit: &Unit, resources: &[&str]) {
        let of = |attributes: &&str| format!(r#"{{"resource":{{"attributes":[{attributes}]}},"scopeSpans":[{{}}]}}"#);
        let resources: Vec<_> = resources.iter().map(of).collect();
        let spans = otlp::<Span>(&format!(r#"{{"resourceSpans":[{}]}}"#, resources.join(",")));
        unit.world.consumer("input").traces.consume(spans).await.unwrap();
    }

    fn text(key: &str, value: &str) -> String {
        format!(r#"{{"key":"{key}","value":{{"stringValue":"{value}"}}}}"#)
    }

    fn hosts(sink: &OtlpSink, batch: usize) -> Vec<String> {
        let json: Json = serde_json::from_str(&sink.batches()[batch].json).unwrap();
        let scope = &json["resourceMetrics"][0]["scopeMetrics"][0];
        assert_eq!(scope["scope"]["name"], "hostinfoconnector");
        assert_eq!(scope["metrics"][0]["name"], "traces_host_info");
        let points = scope["metrics"][0]["gauge"]["dataPoints"].as_array().unwrap();
        let host = |point: &Json| {
            assert_eq!(point["asInt"], "1");
            assert_eq!(point["startTimeUnixNano"], point["timeUnixNano"]);
            assert_eq!(point["attributes"][0]["key"], "grafana.host.id");
            point["attributes"][0]["value"]["stringValue"].as_str().unwrap().to_owned()
        };
        points.iter().map(host).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn hosts_are_bounded_in_bytes() {
        let sink = OtlpSink::default();
        let unit = start(&sink, "").await.unwrap();
        for number in 0..80 {
            send(&unit, &[&text("host.id", &format!("{number}{}", "x".repeat(1 << 20)))]).await;
        }
        assert!(unit.world.logs().contains("too many hosts"), "{}", unit.world.logs());
        until("they are sent", || sink.batches().len() == 1).await;
        assert_eq!(sink.items(), 63);
        send(&unit, &[&text("host.id", "a")]).await;
        tokio::time::sleep(Duration::from_secs(61)).await;
        assert_eq!(hosts(&sink, 1), ["a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn each_host_is_sent_once_and_only_while_there_are_spans_of_it() {
        let sink = OtlpSink::default();
        let mut unit = start(&sink, "host_identifiers = [\"host.id\", \"k8s.node.uid\"]").await.unwrap();
        let both = format!("{},{}", text("host.id", "b"), text("k8s.node.uid", "node"));
        let number = r#"{"key":"host.id","value":{"intValue":"7"}}"#;
        send(&unit, &[&text("host.id", "a"), &both, &text("host.id", "a"), &text("host", "c"), number]).await;
        until("it is flushed", || sink.batches().len() == 1).await;
        assert_eq!(hosts(&sink, 0), ["a", "b", "node", "7"]);
        stays("nothing is sent", Duration::from_secs(150), || sink.batches().len() == 1).await;
        send(&unit, &[&text("host.id", "a")]).await;
        unit.drain().await;
        assert_eq!(hosts(&sink, 1), ["a"]);
        assert_eq!(unit.world.balance_of(corten_signal::Kind::OtelMetric), "out 5, created {otel_trace: 5}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_took_goes_with_the_next_flush() {
        let sink = OtlpSink::default();
        let unit = start(&sink, "metrics_flush_interval = \"15s\"").await.unwrap();
        sink.answer_with(Some(ConsumeError::Retry { after: None, reason: "busy".into() }));
        send(&unit, &[&text("host.id", "a")]).await;
        tokio::time::sleep(Duration::from_secs(100)).await;
        sink.answer_with(None);
        send(&unit, &[&text("host.id", "b")]).await;
        until("all is flushed", || sink.items() == 2).await;
        assert!(unit.world.logs().contains("Error consuming metrics"));
        assert_eq!(unit.world.balance_of(corten_signal::Kind::OtelMetric), "out 2, created {otel_trace: 2}");
    }

    #[tokio::test]
    async fn what_contradicts_itself_is_refused() {
        for (body, want) in [
            ("host_identifiers = []", "host_identifiers must not be empty"),
            ("metrics_flush_interval = \"-1s\"", "metrics_flush_interval must be greater than 0"),
        ] {
            let error = start(&OtlpSink::default(), body).await.unwrap_err();
            assert!(error.contains(want), "{error}");
        }
    }
}
