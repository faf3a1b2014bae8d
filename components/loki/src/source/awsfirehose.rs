//! `loki.source.awsfirehose`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use corten_component::listen::{self, Exchange, ListenSettings};
use corten_component::metrics::{Counter, DEFAULT_BUCKETS, Histogram, Registry, Vector};
use corten_component::{Component, Context, Error, Task, request_metric_names};
use corten_config::Arguments;
use corten_net::{ReceiverHttp, Secret, ServerBody, full_body};
use corten_signal::logs::TENANT_LABEL;
use corten_signal::relabel::{NameScheme, RelabelRules};
use corten_signal::{Entries, EntriesBuilder, Fanout, LabelsBuilder, Logs, Receiver};
use corten_wire::firehose::{self, CloudWatch, RecordError};
use flate2::read::MultiGzDecoder;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use parking_lot::Mutex;

use super::http::{Answer, Door, TENANT_HEADER, inflate, now_ns, text};
use super::{OnDrop, SourceLabels};
use crate::dropped::{Drops, Why};
use crate::forward::fanout;

/// Receives log entries from Amazon Data Firehose over HTTP, and sends them on.
///
/// Streams send to `/awsfirehose/api/v1/push`. A record is the line of an entry; of what CloudWatch Logs sends, each log
/// event is. What is known of them are internal labels, which `relabel_rules` can make labels of the entry:
/// `__aws_firehose_request_id` and `__aws_firehose_source_arn`, and for log events `__aws_owner`, `__aws_cw_log_group`,
/// `__aws_cw_log_stream`, `__aws_cw_matched_filters` and `__aws_cw_msg_type`. Common attributes of the stream whose names
/// begin with `lbl_` are labels without that. An entry that the rules drop is sent on without labels. The header
/// `X-Scope-OrgID` names the tenant.
///
/// Requests are answered when all receivers have the entries safe, or when they have reached a stage that keeps them for a
/// while.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct FirehoseArguments {
    /// Where to send the entries.
    forward_to: Vec<Receiver<Logs>>,
    /// The key that streams have to send as their access key; empty if they need none.
    #[arg(default = "")]
    access_key: Secret,
    /// Rules that make labels of internal labels, as a `loki.relabel` component exports them.
    #[arg(optional)]
    relabel_rules: RelabelRules,
    /// Whether entries keep the time that they come with; otherwise they get the time at which they are received.
    #[arg(default = false)]
    use_incoming_timestamp: bool,
    /// How long requests that are under way may go on when the server stops.
    #[arg(default = "30s")]
    graceful_shutdown_timeout: Duration,
    /// Where and how to listen.
    #[block]
    http: Option<ReceiverHttp>,
}

/// Where streams send to, and how the reference names the route in metrics.
const PATH: &str = "/awsfirehose/api/v1/push";
const ROUTE: &str = "awsfirehose_api_v1_push";

const ACCESS_KEY: HeaderName = HeaderName::from_static("x-amz-firehose-access-key");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-amz-firehose-request-id");
const SOURCE_ARN: HeaderName = HeaderName::from_static("x-amz-firehose-source-arn");
const COMMON_ATTRIBUTES: HeaderName = HeaderName::from_static("x-amz-firehose-common-attributes");

/// What names of common attributes that are labels begin with.
const LABEL_PREFIX: &str = "lbl_";

/// The longest body, in bytes, compressed as well as decompressed: what streams send at most.
const BODY_BYTES_MAX: usize = 64 << 20;
/// How many bytes a record, and all records of a request, may have once they are decompressed.
const RECORD_BYTES_MAX: usize = 16 << 20;
const RECORDS_BYTES_MAX: usize = 256 << 20;

/// The component.
pub struct Firehose {
    shared: Arc<Shared>,
    server: Task,
}

/// What is to be put in place.
pub struct Prepared {
    arguments: FirehoseArguments,
    labels: SourceLabels,
    listen: ListenSettings,
}

/// What requests are taken with, until other arguments come.
struct Settings {
    forward: Fanout<Logs>,
    access_key: Secret,
    reading: Arc<Reading>,
}

/// How requests are read.
struct Reading {
    labels: SourceLabels,
    use_incoming_timestamp: bool,
    metrics: Metrics,
}

/// What all requests share, over all changes of the arguments.
struct Shared {
    settings: Mutex<Arc<Settings>>,
    door: Door,
    metrics: Metrics,
}

#[derive(Clone)]
struct Metrics {
    entries_written: Counter,
    request_errors: Vector<Counter>,
    record_errors: Vector<Counter>,
    records_received: Vector<Counter>,
    batch_size: Histogram,
    invalid_labels: Vector<Counter>,
}

impl Metrics {
    fn new(registry: &Registry) -> Self {
        Metrics {
            entries_written: registry
                .counter("loki_source_awsfirehose_entries_written", "Total number of entries written."),
            request_errors: registry.counters(
                "loki_source_awsfirehose_request_errors",
                "Number of errors while receiving AWS Firehose API requests",
                &["reason"],
            ),
            record_errors: registry.counters(
                "loki_source_awsfirehose_record_errors",
                "Number of errors while decoding AWS Firehose records",
                &["reason"],
            ),
            records_received: registry.counters(
                "loki_source_awsfirehose_records_received",
                "Number of records received from AWS Firehose",
                &["type"],
            ),
            batch_size: registry.histogram(
                "loki_source_awsfirehose_batch_size",
                "AWS Firehose received batch size in number of records",
                DEFAULT_BUCKETS,
            ),
            invalid_labels: registry.counters(
                "loki_source_awsfirehose_invalid_static_labels_errors",
                "Number of errors while processing AWS Firehose static labels",
                &["reason", "tenant_id"],
            ),
        }
    }
}

impl Component for Firehose {
    const NAME: &'static str = "loki.source.awsfirehose";
    type Arguments = FirehoseArguments;
    type Exports = ();
    type Prepared = Prepared;

    async fn prepare(
        arguments: FirehoseArguments,
        _: &Context<Self>,
        current: Option<&Self>,
    ) -> Result<(Prepared, ()), Error> {
        let labels = SourceLabels::new(&arguments.relabel_rules, OnDrop::NoLabels, true)?;
        let before = current.map(|current| current.shared.door.listening.settings());
        let http = arguments.http.clone().unwrap_or_default();
        let listen = ListenSettings::prepare(&http, arguments.graceful_shutdown_timeout, before.as_deref()).await?;
        Ok((Prepared { arguments, labels, listen }, ()))
    }

    fn commit(current: Option<Self>, prepared: Prepared, cx: &Context<Self>) -> Self {
        let Prepared { arguments, labels, listen } = prepared;
        let metrics =
            current.as_ref().map_or_else(|| Metrics::new(cx.metrics()), |current| current.shared.metrics.clone());
        let settings = Arc::new(Settings {
            forward: fanout(cx, arguments.forward_to),
            access_key: arguments.access_key,
            reading: Arc::new(Reading {
                labels,
                use_incoming_timestamp: arguments.use_incoming_timestamp,
                metrics: metrics.clone(),
            }),
        });
        if let Some(current) = current {
            *current.shared.settings.lock() = settings;
            current.shared.door.listening.set(listen);
            return current;
        }
        let door = Door::new(
            listen,
            cx.metrics(),
            cx.ledger(),
            request_metric_names!("loki_source_awsfirehose"),
            cx.logger().clone(),
            "listening for Firehose requests",
        );
        cx.show_debug_info(door.debug_info());
        let shared = Arc::new(Shared { settings: Mutex::new(settings), door, metrics });
        let (serving, report) = (Arc::clone(&shared), listen::report(cx));
        let server = cx.spawn("server", move |stop| {
            let shared = Arc::clone(&serving);
            let handler = move |request| {
                let shared = Arc::clone(&shared);
                async move { shared.handle(request).await }
            };
            Arc::clone(&serving.door.listening).run(Arc::new(handler), Arc::clone(&report), stop)
        });
        Firehose { shared, server }
    }

    async fn drain(self, _: &Context<Self>) {
        // Requests under way are answered, within a limit; whoever connects is refused.
        self.server.stop().await;
    }
}

impl Shared {
    async fn handle(&self, request: Request<Incoming>) -> Response<ServerBody> {
        let is_path = request.uri().path() == PATH;
        let is_push = is_path && request.method() == Method::POST;
        let mut exchange = self.door.begin(request, |_| if is_push { ROUTE } else { "other" });
        let response = match (is_push, is_path) {
            (true, _) => {
                let answer = self.take(&mut exchange).await.err();
                if let Some(answer) = &answer {
                    self.door.complain(&exchange.parts, answer.status, &answer.text);
                }
                respond(&exchange.parts.headers, answer)
            }
            (false, true) => Answer::wrong_method().into_response(),
            (false, false) => Answer::not_found().into_response(),
        };
        exchange.finish(response).await
    }

    async fn take(&self, exchange: &mut Exchange) -> Result<(), Answer> {
        let settings = Arc::clone(&*self.settings.lock());
        let wanted = settings.access_key.expose();
        if !wanted.is_empty() && !same(text(&exchange.parts.headers, &ACCESS_KEY).as_bytes(), wanted.as_bytes()) {
            return Err(Answer::new(StatusCode::UNAUTHORIZED, "access key not provided or incorrect"));
        }
        let (headers, reading) = (exchange.parts.headers.clone(), Arc::clone(&settings.reading));
        let body = self.door.body(exchange, BODY_BYTES_MAX).await?;
        let (batches, mut drops) = self.door.read(body.len(), move || reading.read(&body, &headers)).await?;
        self.door.hold(&mut exchange.body.held, &batches)?;
        let entries = batches.iter().map(Entries::len).sum::<usize>() as u64;
        self.door.deliver(&settings.forward, batches).await?;
        self.metrics.entries_written.add(entries);
        drops.count(&self.door.row, settings.reading.labels.rules());
        Ok(())
    }
}

/// Whether two texts are the same, in a time that does not tell where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && std::hint::black_box(a.iter().zip(b).fold(0, |sum, (a, b)| sum | (a ^ b))) == 0
}

/// The answer that a stream expects: JSON with the id of its request.
fn respond(headers: &HeaderMap, refusal: Option<Answer>) -> Response<ServerBody> {
    let mut body = serde_json::Map::new();
    body.insert("requestId".to_owned(), text(headers, &REQUEST_ID).into());
    body.insert("timestamp".to_owned(), (now_ns() / 1_000_000_000).into());
    let status = refusal.as_ref().map_or(StatusCode::OK, |refusal| refusal.status);
    if let Some(refusal) = refusal.filter(|refusal| !refusal.text.is_empty()) {
        body.insert("errorMessage".to_owned(), refusal.text.into());
    }
    let mut response = Response::new(full_body(format!("{}\n", serde_json::Value::Object(body))));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

impl Reading {
    fn read(&self, body: &Bytes, headers: &HeaderMap) -> Result<(Vec<Entries>, Drops), Answer> {
        let refused = |reason: &str| self.metrics.request_errors.with(&[reason]).inc();
        let mut broken = None;
        let body = if text(headers, &header::CONTENT_ENCODING) == "gzip" {
            let mut decoder = MultiGzDecoder::new(&body[..]);
            let inflated = inflate(&mut decoder, BODY_BYTES_MAX).inspect_err(|_| refused("pre_read"))?;
            let has_begun = !inflated.0.is_empty() || decoder.header().is_some();
            broken = inflated.1;
            if let Some(broken) = broken.take_if(|_| !has_begun) {
                refused("pre_read");
                return Err(broken);
            }
            inflated.0.into()
        } else {
            body.clone()
        };
        let request = firehose::Request::parse(&body).map_err(|error| {
            refused("read_or_format");
            broken.unwrap_or_else(|| Answer::bad(error.to_string()))
        })?;
        let mut common = self.common_labels(headers);
        self.metrics.batch_size.observe(request.records.len() as f64);
        let mut collect = Collect {
            reading: self,
            builder: EntriesBuilder::new(),
            batches: Vec::new(),
            drops: Drops::default(),
            labels: LabelsBuilder::new(),
        };
        let mut room = RECORDS_BYTES_MAX;
        for data in &request.records {
            let now = now_ns();
            // To the second, as the reference does.
            let stated = (request.timestamp_ms / 1_000).saturating_mul(1_000_000_000);
            let time = if self.use_incoming_timestamp { stated } else { now };
            let count = |kind: &str| self.metrics.records_received.with(&[kind]).inc();
            let failed = |error: RecordError| self.metrics.record_errors.with(&[error.reason()]).inc();
            match firehose::Record::decode(data, room.min(RECORD_BYTES_MAX)) {
                Ok(firehose::Record::Direct(line)) => {
                    count("direct-put");
                    collect.push(&common, time, &line);
                }
                Ok(firehose::Record::CloudWatch(json)) => {
                    count("cloudwatch-logs");
                    room -= json.len().min(room);
                    match CloudWatch::parse(&json) {
                        Ok(events) => collect.events(&mut common, &events, time),
                        Err(_) => {
                            failed(RecordError::CloudWatch);
                            collect.drops.add(Why::PARSE_ERROR, 1);
                        }
                    }
                }
                Err(error) => {
                    failed(error);
                    collect.drops.add(Why::PARSE_ERROR, 1);
                }
            }
        }
        Ok(collect.finish())
    }

    /// What all entries of a request have in common.
    fn common_labels(&self, headers: &HeaderMap) -> BTreeMap<String, String> {
        let tenant = text(headers, &TENANT_HEADER);
        let mut labels = BTreeMap::new();
        let mut set = |name: &str, value: &str| {
            if value.is_empty() {
                labels.remove(name)
            } else {
                labels.insert(name.to_owned(), value.to_owned())
            };
        };
        set("__aws_firehose_request_id", &text(headers, &REQUEST_ID));
        set("__aws_firehose_source_arn", &text(headers, &SOURCE_ARN));
        set(TENANT_LABEL, &tenant);
        let attributes = text(headers, &COMMON_ATTRIBUTES);
        if attributes.is_empty() {
            return labels;
        }
        let invalid = |reason: &str| self.metrics.invalid_labels.with(&[reason, &tenant]).inc();
        let Ok(attributes) = firehose::common_attributes(&attributes) else {
            invalid("invalid_json_format");
            return labels;
        };
        for (name, value) in attributes {
            let Some(name) = name.strip_prefix(LABEL_PREFIX) else { continue };
            let is_valid = |name: &str| NameScheme::Legacy.is_valid(name);
            let name = if is_valid(name) { name.to_owned() } else { firehose::sanitized(name) };
            if is_valid(&name) { set(&name, &value) } else { invalid("invalid_label_name") }
        }
        labels
    }
}

/// Collects the entries of a request.
struct Collect<'a> {
    reading: &'a Reading,
    builder: EntriesBuilder,
    batches: Vec<Entries>,
    drops: Drops,
    labels: LabelsBuilder,
}

impl Collect<'_> {
    fn push(&mut self, labels: &BTreeMap<String, String>, time: i64, line: &[u8]) {
        self.labels.clear();
        for (name, value) in labels {
            self.labels.push(name, value);
        }
        // Headers are far too short for labels that are too long.
        let stream = match self.reading.labels.stream(&mut self.labels, &[]) {
            Ok(Ok(stream)) => stream,
            Ok(Err(why)) => return self.drops.add(why, 1),
            Err(_) => return self.drops.add(Why::INVALID_LABELS, 1),
        };
        let part = self.builder.stream(&stream);
        let line = self.builder.own(line);
        self.builder.push(part, time, line);
        if self.builder.is_full() {
            self.finish_batch();
        }
    }

    fn events(&mut self, common: &mut BTreeMap<String, String>, events: &CloudWatch, time: i64) {
        let filters = events.filters.join(",");
        let own = [
            ("__aws_owner", &events.owner),
            ("__aws_cw_log_group", &events.log_group),
            ("__aws_cw_log_stream", &events.log_stream),
            ("__aws_cw_matched_filters", &filters),
            ("__aws_cw_msg_type", &events.message_type),
        ];
        for (name, value) in own.iter().filter(|(_, value)| !value.is_empty()) {
            common.insert((*name).to_owned(), (*value).clone());
        }
        for (time_ms, line) in &events.events {
            let stated = time_ms.saturating_mul(1_000_000);
            self.push(common, if self.reading.use_incoming_timestamp { stated } else { time }, line.as_bytes());
        }
        for (name, _) in own {
            common.remove(name);
        }
    }

    fn finish_batch(&mut self) {
        self.batches.push(self.builder.finish(now_ns() / 1_000_000));
    }

    fn finish(mut self) -> (Vec<Entries>, Drops) {
        if !self.builder.is_empty() {
            self.finish_batch();
        }
        (self.batches, self.drops)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use corten_component::Definition;
    use corten_config::Value;
    use corten_config::arguments::Record as _;
    use corten_config::decode::Decode as _;
    use corten_net::Client;
    use corten_signal::relabel::{Action, Rule};
    use corten_testkit::{Unit, host};
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::super::testing::{Answered, Case, Sink, Then, address, client, recorded, send};
    use super::*;

    const FIREHOSE: Definition = Definition::of::<Firehose>();
    const HTTP: &str = "http {\n listen_address = \"127.0.0.1\"\n listen_port = 0\n }";

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn request(records: &[&[u8]]) -> String {
        let records: Vec<String> =
            records.iter().map(|record| format!("{{\"data\":\"{}\"}}", STANDARD.encode(record))).collect();
        format!("{{\"requestId\":\"r\",\"timestamp\":1500,\"records\":[{}]}}", records.join(","))
    }

    struct Running {
        unit: Unit,
        client: Client,
    }

    impl Running {
        async fn start(sink: &Sink, more: &str) -> Self {
            let rule = |source: &str, target: &str| Rule {
                source_labels: Vec::from([source.to_owned()]),
                target_label: target.to_owned(),
                ..Rule::default()
            };
            let drop = Rule {
                action: Action::Drop,
                source_labels: Vec::from(["__aws_cw_msg_type".to_owned()]),
                regex: "CONTROL_MESSAGE".into(),
                ..Rule::default()
            };
            let rules = [
                rule("__aws_firehose_request_id", "id"),
                rule("__aws_firehose_source_arn", "arn"),
                rule("__aws_cw_log_group", "group"),
                rule("__aws_cw_matched_filters", "filters"),
                drop,
            ];
            let rules: Value = RelabelRules(rules.into()).to_value();
            let body = format!("forward_to = [sink]\nrelabel_rules = rules\n{HTTP}\n{more}");
            let names = [("sink", sink.value()), ("rules", rules)];
            let unit = Unit::start_with(host("loki.source.awsfirehose.a"), &FIREHOSE, &body, &names).await.unwrap();
            Running { unit, client: client().await }
        }

        async fn post(&self, headers: &[(&str, &str)], body: impl Into<corten_net::Body>) -> Answered {
            let at = address(&self.unit.world, "listening for Firehose requests").await;
            send(&self.client, Method::POST, &format!("http://{at}{PATH}"), headers, body).await
        }

        fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
            self.unit.world.metrics().get(&format!("loki_source_awsfirehose_{name}"), labels)
        }
    }

    #[test]
    fn the_table_of_the_arguments_is_in_order() {
        assert_eq!(FirehoseArguments::SCHEMA.defects(), [""; 0]);
    }

    #[tokio::test]
    async fn requests_are_taken_as_the_reference_takes_them() {
        let (cases, differ) = recorded(include_str!("../../tests/data/sources/firehose.json"));
        assert_eq!((cases.len(), differ), (74, 0));
        let client = client().await;
        let mut differences = Vec::new();
        for case in cases {
            let sink = Sink::new();
            let names = [("sink", sink.value()), ("rules", Case::rules().to_value())];
            let unit = Unit::start_with(host("loki.source.awsfirehose.a"), &FIREHOSE, &case.arguments(), &names)
                .await
                .unwrap();
            let at = address(&unit.world, "listening for Firehose requests").await;
            let query = case.json()["query"].as_str().unwrap_or_default();
            let headers = case.headers();
            let headers: Vec<_> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
            let url = format!("http://{at}{}{query}", PATH);
            let answer = send(&client, Method::POST, &url, &headers, case.body()).await;
            differences.extend(case.difference(Some(answer.status), sink.entries()));
            for (name, labels, value) in case.metrics() {
                let labels: Vec<_> = labels.iter().map(|(name, value)| (&**name, &**value)).collect();
                let is = unit.world.metrics().get(&name, &labels);
                if is != Some(value) {
                    differences.push(format!("{}\n  is     {name}{labels:?} {is:?}", case.json()));
                }
            }
        }
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    }

    #[tokio::test]
    async fn records_and_log_events_become_entries() {
        let sink = Sink::new();
        let running = Running::start(&sink, "use_incoming_timestamp = true").await;
        let events = |kind: &str| {
            gzip(
                format!(
                    "{{\"messageType\":\"{kind}\",\"owner\":\"1\",\"logGroup\":\"g\",\"logStream\":\"s\",\
                     \"subscriptionFilters\":[\"a\",\"b\"],\"logEvents\":[{{\"id\":\"1\",\"timestamp\":7,\"message\":\"one\"}},\
                     {{\"id\":\"2\",\"timestamp\":8,\"message\":\"two\"}}]}}"
                )
                .as_bytes(),
            )
        };
        let headers = [
            ("x-amz-firehose-request-id", "r-1"),
            ("x-amz-firehose-source-arn", "arn:x"),
            ("x-scope-orgid", "t"),
            (
                "x-amz-firehose-common-attributes",
                r#"{"commonAttributes":{"lbl_my-env":"e","other":"x","lbl_0":"x","lbl_":"x"}}"#,
            ),
        ];
        let body = request(&[b"{\"direct\":1}", &events("DATA_MESSAGE"), &events("CONTROL_MESSAGE"), b"last"]);
        let answer = running.post(&headers, body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let body: serde_json::Value = serde_json::from_str(&answer.text).unwrap();
        assert_eq!((&body["requestId"], body.get("errorMessage")), (&"r-1".into(), None));
        assert!((now_ns() / 1_000_000_000 - body["timestamp"].as_i64().unwrap()).abs() < 60);
        let mut entries = sink.entries();
        entries.sort();
        let direct = "{__tenant_id__=\"t\", arn=\"arn:x\", id=\"r-1\", my_env=\"e\"}";
        let of_events = "{__tenant_id__=\"t\", arn=\"arn:x\", filters=\"a,b\", group=\"g\", id=\"r-1\", my_env=\"e\"}";
        assert_eq!(
            entries,
            [
                (7_000_000, format!("{of_events} one")),
                (7_000_000, "{} one".to_owned()),
                (8_000_000, format!("{of_events} two")),
                (8_000_000, "{} two".to_owned()),
                (1_000_000_000, format!("{direct} last")),
                (1_000_000_000, format!("{direct} {{\"direct\":1}}")),
            ]
        );
        assert_eq!(running.metric("entries_written", &[]), Some(6.0));
        assert_eq!(running.metric("records_received", &[("type", "direct-put")]), Some(2.0));
        assert_eq!(running.metric("records_received", &[("type", "cloudwatch-logs")]), Some(2.0));
        assert_eq!(running.metric("batch_size", &[]), Some(1.0));
        let labels = [("reason", "invalid_label_name"), ("tenant_id", "t")];
        assert_eq!(running.metric("invalid_static_labels_errors", &labels), Some(2.0));
    }

    #[tokio::test]
    async fn a_bad_record_is_left_out_alone() {
        let sink = Sink::new();
        let running = Running::start(&sink, "").await;
        let mut body = request(&[b"good", &gzip(b"{}")[..15], &gzip(b"[]"), b"also good"]);
        body = body.replace("\"records\":[", "\"records\":[{\"data\":\"?\"},");
        let headers = [("content-encoding", "gzip"), ("x-amz-firehose-common-attributes", "{")];
        assert_eq!(running.post(&headers, gzip(body.as_bytes())).await.status, 200);
        assert_eq!(sink.shown(), ["{} good", "{} also good"]);
        let expected = "received 5, out 2, dropped {parse error: 3}";
        assert_eq!(running.unit.world.balance_of(corten_signal::Kind::LokiLog), expected);
        for reason in ["base64-decode", "gzip-deflate", "cw-json-decode"] {
            assert_eq!(running.metric("record_errors", &[("reason", reason)]), Some(1.0), "{reason}");
        }
        let labels = [("reason", "invalid_json_format"), ("tenant_id", "")];
        assert_eq!(running.metric("invalid_static_labels_errors", &labels), Some(1.0));
    }

    #[tokio::test]
    async fn requests_are_refused_in_the_form_of_the_service() {
        let sink = Sink::new();
        let running = Running::start(&sink, "access_key = \"secret\"").await;
        let error = |answer: &Answered| {
            let body: serde_json::Value = serde_json::from_str(&answer.text).unwrap();
            body["errorMessage"].as_str().unwrap_or_default().to_owned()
        };
        let key = ("x-amz-firehose-access-key", "secret");
        for headers in [vec![], vec![("x-amz-firehose-access-key", "secreT")], vec![("x-amz-firehose-access-key", "")]]
        {
            let answer = running.post(&headers, request(&[b"x"])).await;
            assert_eq!((answer.status, &*error(&answer)), (401, "access key not provided or incorrect"));
        }
        assert_eq!(running.post(&[key], "nonsense").await.status, 400);
        assert_eq!(running.post(&[key, ("content-encoding", "gzip")], request(&[b"x"])).await.status, 400);
        for reason in ["read_or_format", "pre_read"] {
            assert_eq!(running.metric("request_errors", &[("reason", reason)]), Some(1.0), "{reason}");
        }
        *sink.then.lock() = Then::Fail;
        let answer = running.post(&[key], request(&[b"x"])).await;
        assert_eq!((answer.status, &*error(&answer)), (503, "the entries were not delivered"));
        *sink.then.lock() = Then::Safe;
        assert_eq!(running.post(&[key], request(&[b"x"])).await.status, 200);
        let at = address(&running.unit.world, "listening for Firehose requests").await;
        for (method, path, status) in [(Method::GET, PATH, 405), (Method::GET, "/", 404)] {
            assert_eq!(send(&running.client, method, &format!("http://{at}{path}"), &[], "").await.status, status);
        }
    }
}
