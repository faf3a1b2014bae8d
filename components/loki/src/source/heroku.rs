//! `loki.source.heroku`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use corten_component::listen::{self, Exchange, ListenSettings, Report, RequestMetricNames};
use corten_component::metrics::Counter;
use corten_component::{Component, Context, Error, Task, request_metric_names};
use corten_config::Arguments;
use corten_net::{ReceiverHttp, ServerBody};
use corten_signal::logs::TENANT_LABEL;
use corten_signal::relabel::RelabelRules;
use corten_signal::{Entries, EntriesBuilder, Fanout, LabelError, LabelsBuilder, Logs, Receiver, Stream};
use corten_wire::logplex;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use parking_lot::Mutex;

use super::grpc::{self, GrpcArguments, GrpcServer};
use super::http::{Answer, Door, TENANT_HEADER, now_ns, text};
use super::{OnDrop, SourceLabels};
use crate::forward::fanout;

/// Receives log entries from Heroku's HTTPS drains, and sends them on.
///
/// Drains send to `/heroku/api/v1/drain`. What a message says of itself are internal labels, which `relabel_rules` can make
/// labels of the entry: `__heroku_drain_host`, `__heroku_drain_app`, `__heroku_drain_proc`, `__heroku_drain_log_id`, and
/// `__heroku_drain_param_<name>` for each parameter of the drain's URL. A message that the rules drop is sent on with
/// `labels` alone. The header `X-Scope-OrgID` names the tenant.
///
/// Requests are answered when all receivers have the entries safe, or when they have reached a stage that keeps them for a
/// while. `GET /healthy` says that the component runs.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct HerokuArguments {
    /// Where to send the entries.
    forward_to: Vec<Receiver<Logs>>,
    /// Labels for all entries. Rules do not see them, and labels that rules make count more.
    #[arg(optional)]
    labels: BTreeMap<String, String>,
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
    /// Where and how to listen for gRPC, over which nothing is received.
    #[block]
    grpc: Option<GrpcArguments>,
}

/// Where drains send to, and how the reference names the route in metrics.
const DRAIN: (&str, &str) = ("/heroku/api/v1/drain", "heroku_api_v1_drain");
const HEALTHY: (&str, &str) = ("/healthy", "healthy");

/// The longest body, in bytes: Logplex sends far less at once.
const BODY_BYTES_MAX: usize = 32 << 20;

/// What the metrics of the server are called.
const NAMES: RequestMetricNames = request_metric_names!("loki_source_heroku_drain_target");

/// The component.
pub struct Heroku {
    shared: Arc<Shared>,
    server: Task,
    report: Report,
    grpc: Option<GrpcServer>,
}

/// What is to be put in place.
pub struct Prepared {
    arguments: HerokuArguments,
    labels: SourceLabels,
    listen: ListenSettings,
    grpc: Option<ListenSettings>,
}

/// What requests are taken with, until other arguments come.
struct Settings {
    forward: Fanout<Logs>,
    reading: Arc<Reading>,
}

/// How requests are read.
struct Reading {
    labels: SourceLabels,
    fixed: Vec<(String, String)>,
    use_incoming_timestamp: bool,
}

/// What all requests share, over all changes of the arguments.
struct Shared {
    settings: Mutex<Arc<Settings>>,
    door: Door,
    entries: Counter,
    parsing_errors: Counter,
}

impl Component for Heroku {
    const NAME: &'static str = "loki.source.heroku";
    type Arguments = HerokuArguments;
    type Exports = ();
    type Prepared = Prepared;

    async fn prepare(
        arguments: HerokuArguments,
        _: &Context<Self>,
        current: Option<&Self>,
    ) -> Result<(Prepared, ()), Error> {
        let labels = SourceLabels::new(&arguments.relabel_rules, OnDrop::NoLabels, false)?;
        let before = current.map(|current| current.shared.door.listening.settings());
        let http = arguments.http.clone().unwrap_or_default();
        let listen = ListenSettings::prepare(&http, arguments.graceful_shutdown_timeout, before.as_deref()).await?;
        let before = current.and_then(|current| current.grpc.as_ref());
        let grpc = grpc::prepare(arguments.grpc.as_ref(), arguments.graceful_shutdown_timeout, before).await?;
        Ok((Prepared { arguments, labels, listen, grpc }, ()))
    }

    fn commit(current: Option<Self>, prepared: Prepared, cx: &Context<Self>) -> Self {
        let Prepared { arguments, labels, listen, grpc } = prepared;
        let settings = Arc::new(Settings {
            forward: fanout(cx, arguments.forward_to),
            reading: Arc::new(Reading {
                labels,
                fixed: arguments.labels.into_iter().collect(),
                use_incoming_timestamp: arguments.use_incoming_timestamp,
            }),
        });
        if let Some(mut current) = current {
            *current.shared.settings.lock() = settings;
            current.shared.door.listening.set(listen);
            current.grpc = GrpcServer::commit(current.grpc.take(), grpc, NAMES, &current.report, cx);
            return current;
        }
        let door =
            Door::new(listen, cx.metrics(), cx.ledger(), NAMES, cx.logger().clone(), "listening for Heroku drains");
        cx.show_debug_info(door.debug_info());
        let shared = Arc::new(Shared {
            settings: Mutex::new(settings),
            door,
            entries: cx.metrics().counter(
                "loki_source_heroku_drain_entries_total",
                "Number of successful entries received by the Heroku target",
            ),
            parsing_errors: cx.metrics().counter(
                "loki_source_heroku_drain_parsing_errors_total",
                "Number of parsing errors while receiving Heroku messages",
            ),
        });
        let [report, of_grpc] = listen::reports(cx);
        let grpc = GrpcServer::commit(None, grpc, NAMES, &of_grpc, cx);
        let serving = Arc::clone(&shared);
        let server = cx.spawn("server", move |stop| {
            let shared = Arc::clone(&serving);
            let handler = move |request| {
                let shared = Arc::clone(&shared);
                async move { shared.handle(request).await }
            };
            Arc::clone(&serving.door.listening).run(Arc::new(handler), Arc::clone(&report), stop)
        });
        Heroku { shared, server, report: of_grpc, grpc }
    }

    async fn drain(self, _: &Context<Self>) {
        // Requests under way are answered, within a limit; whoever connects is refused.
        self.server.stop().await;
        if let Some(grpc) = self.grpc {
            grpc.drain().await;
        }
    }
}

impl Shared {
    async fn handle(&self, request: Request<Incoming>) -> Response<ServerBody> {
        let (path, method) = (request.uri().path(), request.method().clone());
        let (is_drain, is_healthy) = (path == DRAIN.0, path == HEALTHY.0);
        let route = match (is_drain, is_healthy) {
            (true, _) if method == Method::POST => DRAIN.1,
            (_, true) if method == Method::GET => HEALTHY.1,
            _ => "other",
        };
        let mut exchange = self.door.begin(request, |_| route);
        let answer = match route {
            "other" if is_drain || is_healthy => Answer::wrong_method(),
            "other" => Answer::not_found(),
            route if route == HEALTHY.1 => Answer::new(StatusCode::OK, ""),
            _ => {
                let answer = self.take(&mut exchange).await.unwrap_or_else(|answer| answer);
                if !answer.status.is_success() {
                    self.door.complain(&exchange.parts, answer.status, &answer.text);
                }
                answer
            }
        };
        exchange.finish(answer.into_response()).await
    }

    async fn take(&self, exchange: &mut Exchange) -> Result<Answer, Answer> {
        let settings = Arc::clone(&*self.settings.lock());
        let reading = Arc::clone(&settings.reading);
        let tenant = text(&exchange.parts.headers, &TENANT_HEADER).into_owned();
        let parameters = parameters(exchange.parts.uri.query().unwrap_or_default());
        let body = self.door.body(exchange, BODY_BYTES_MAX).await?;
        let parsing_errors = self.parsing_errors.clone();
        let read = self
            .door
            .read(body.len(), move || reading.read(&body, &parameters, &tenant).inspect_err(|_| parsing_errors.inc()));
        let batches = read.await?;
        self.door.hold(&mut exchange.body.held, &batches)?;
        let entries = batches.iter().map(Entries::len).sum::<usize>() as u64;
        self.door.deliver(&settings.forward, batches).await?;
        self.entries.add(entries);
        Ok(Answer::new(StatusCode::NO_CONTENT, ""))
    }
}

impl Reading {
    /// The entries of a drain. What is broken somewhere is refused as a whole.
    fn read(&self, body: &Bytes, parameters: &[(String, String)], tenant: &str) -> Result<Vec<Entries>, Answer> {
        let mut builder = EntriesBuilder::new();
        let mut batches = Vec::new();
        let mut labels = LabelsBuilder::new();
        // What the rules made of the message before, and its stream.
        let mut last: Option<(Stream, Stream)> = None;
        for message in logplex::messages(body) {
            let message = message.map_err(|error| Answer::bad(error.to_string()))?;
            labels.clear();
            for (name, value) in [
                ("__heroku_drain_host", message.hostname),
                ("__heroku_drain_app", message.application),
                ("__heroku_drain_proc", message.process),
                ("__heroku_drain_log_id", message.id),
            ] {
                labels.set(name, &lossy(value));
            }
            for (name, value) in parameters {
                labels.set(name, value);
            }
            labels.set(TENANT_LABEL, tenant);
            let refused = |error: LabelError| Answer::bad(error.to_string());
            // The rules drop no entries, only labels.
            let Ok(of_rules) = self.labels.stream(&mut labels, &[]).map_err(refused)? else { continue };
            let stream = match &last {
                Some((known, stream)) if known.same(&of_rules) => stream.clone(),
                _ => {
                    let fixed = self.fixed.iter().map(|(name, value)| (&**name, &**value));
                    let tenant = (!tenant.is_empty()).then_some((TENANT_LABEL, tenant));
                    let stream = Stream::of(fixed.chain(of_rules.labels().iter()).chain(tenant)).map_err(refused)?;
                    last.insert((of_rules, stream)).1.clone()
                }
            };
            let now = now_ns();
            let time = if self.use_incoming_timestamp { message.timestamp.unix_ns() } else { now };
            let part = builder.stream(&stream);
            let line = builder.own(message.text);
            builder.push(part, time, line);
            if builder.is_full() {
                batches.push(builder.finish(now / 1_000_000));
            }
        }
        if !builder.is_empty() {
            batches.push(builder.finish(now_ns() / 1_000_000));
        }
        Ok(batches)
    }
}

/// The parameters of a query as internal labels: values of one name are joined by commas.
fn parameters(query: &str) -> Vec<(String, String)> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    // What has a semicolon or a broken escape is left out, as Go does.
    for pair in query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (Some(name), Some(value)) = (unescaped(name), unescaped(value)) else { continue };
        found
            .entry(format!("__heroku_drain_param_{name}"))
            .and_modify(|values| {
                values.push(',');
                values.push_str(&value);
            })
            .or_insert(value);
    }
    found.into_iter().collect()
}

/// A part of a query without escapes; nothing where one is broken.
fn unescaped(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                (digit(bytes.next())? << 4 | digit(bytes.next())?) as u8
            }
            byte => byte,
        });
    }
    Some(String::from_utf8_lossy(&out).into_owned())
}

fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

#[cfg(test)]
mod tests {
    use corten_component::Definition;
    use corten_config::Value;
    use corten_config::arguments::Record as _;
    use corten_config::decode::Decode as _;
    use corten_net::Client;
    use corten_signal::relabel::{Action, Rule};
    use corten_testkit::{Unit, host};
    use proptest::prelude::*;

    use super::super::testing::{Answered, Case, Sink, Then, address, client, recorded, send};
    use super::*;

    const HEROKU: Definition = Definition::of::<Heroku>();
    const HTTP: &str = "http {\n listen_address = \"127.0.0.1\"\n listen_port = 0\n }";

    struct Running {
        unit: Unit,
        client: Client,
    }

    impl Running {
        async fn start(sink: &Sink, more: &str) -> Self {
            let map = Rule {
                action: Action::LabelMap,
                regex: "__heroku_drain_(.+)".into(),
                replacement: "$1".to_owned(),
                ..Rule::default()
            };
            let drop = Rule {
                action: Action::Drop,
                source_labels: Vec::from(["app".to_owned()]),
                regex: "heroku".into(),
                ..Rule::default()
            };
            let rules: Value = RelabelRules([map, drop].into()).to_value();
            let body = format!("forward_to = [sink]\nrelabel_rules = rules\n{HTTP}\n{more}");
            let names = [("sink", sink.value()), ("rules", rules)];
            let unit = Unit::start_with(host("loki.source.heroku.a"), &HEROKU, &body, &names).await.unwrap();
            Running { unit, client: client().await }
        }

        async fn post(&self, query: &str, headers: &[(&str, &str)], messages: &[&str]) -> Answered {
            let body: String = messages.iter().map(|message| format!("{} {message}", message.len())).collect();
            let at = address(&self.unit.world, "listening for Heroku drains").await;
            send(&self.client, Method::POST, &format!("http://{at}{}{query}", DRAIN.0), headers, body).await
        }

        fn metric(&self, name: &str) -> Option<f64> {
            self.unit.world.metric(&format!("loki_source_heroku_drain_{name}_total"))
        }
    }

    const WEB: &str = "<40>1 2012-11-30T06:45:29+00:00 host app web.3 - State changed\n";
    const PLATFORM: &str = "<40>1 2012-11-30T06:45:30+00:00 host heroku router - at=info\n";

    #[test]
    fn the_table_of_the_arguments_is_in_order() {
        assert_eq!(HerokuArguments::SCHEMA.defects(), [""; 0]);
    }

    #[tokio::test]
    async fn requests_are_taken_as_the_reference_takes_them() {
        let (cases, differ) = recorded(include_str!("../../tests/data/sources/heroku.json"));
        assert_eq!((cases.len(), differ), (74, 0));
        let client = client().await;
        let mut differences = Vec::new();
        for case in cases {
            let sink = Sink::new();
            let names = [("sink", sink.value()), ("rules", Case::rules().to_value())];
            let unit =
                Unit::start_with(host("loki.source.heroku.a"), &HEROKU, &case.arguments(), &names).await.unwrap();
            let at = address(&unit.world, "listening for Heroku drains").await;
            let query = case.json()["query"].as_str().unwrap_or_default();
            let headers = case.headers();
            let headers: Vec<_> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
            let url = format!("http://{at}{}{query}", DRAIN.0);
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
    async fn drains_become_entries() {
        let sink = Sink::new();
        let running =
            Running::start(&sink, "use_incoming_timestamp = true\nlabels = { job = \"heroku\", app = \"?\" }").await;
        let answer = running.post("?env=a+b&env=%63&x", &[("x-scope-orgid", "t|1")], &[WEB, PLATFORM]).await;
        assert_eq!((answer.status, &*answer.text), (204, ""));
        assert_eq!(
            sink.entries(),
            [
                (
                    1_354_257_929_000_000_000,
                    "{__tenant_id__=\"t|1\", app=\"app\", host=\"host\", job=\"heroku\", log_id=\"-\", param_env=\"a b,c\", \
                     proc=\"web.3\"} State changed\n"
                        .to_owned()
                ),
                // Rules do not drop, they only take the labels away.
                (
                    1_354_257_930_000_000_000,
                    "{__tenant_id__=\"t|1\", app=\"?\", job=\"heroku\"} at=info\n".to_owned()
                ),
            ]
        );
        assert_eq!((running.metric("entries"), running.metric("parsing_errors")), (Some(2.0), Some(0.0)));
        let labels = [("method", "POST"), ("route", "heroku_api_v1_drain"), ("status_code", "204"), ("ws", "false")];
        let metrics = running.unit.world.metrics();
        assert_eq!(metrics.get("loki_source_heroku_drain_target_request_duration_seconds", &labels), Some(1.0));
    }

    #[tokio::test]
    async fn a_broken_frame_discards_the_request() {
        let sink = Sink::new();
        let running = Running::start(&sink, "").await;
        let answer = running.post("", &[], &[WEB, "nonsense"]).await;
        assert_eq!((answer.status, &*answer.text), (400, "EOF\n"));
        assert_eq!((sink.batches(), running.metric("parsing_errors")), (0, Some(1.0)));
        assert_eq!(running.post("", &[], &[]).await.status, 204);
        *sink.then.lock() = Then::Fail;
        assert_eq!(running.post("", &[], &[WEB]).await.status, 503);
        assert_eq!(running.metric("entries"), Some(0.0));
        // It went on before it was lost.
        assert_eq!(running.unit.world.balance_of(corten_signal::Kind::LokiLog), "received 1, out 1");
    }

    #[tokio::test]
    async fn each_path_has_the_status_of_the_reference() {
        let running = Running::start(&Sink::new(), "").await;
        let at = address(&running.unit.world, "listening for Heroku drains").await;
        for (method, path, status) in [
            (Method::GET, "/healthy", 200),
            (Method::POST, "/healthy", 405),
            (Method::GET, DRAIN.0, 405),
            (Method::GET, "/", 404),
        ] {
            let answer = send(&running.client, method, &format!("http://{at}{path}"), &[], "").await;
            assert_eq!(answer.status, status, "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_query_makes_it_panic(query in any::<String>(), likely in "[a=&%+0-9;]{0,30}") {
            let _ = (parameters(&query), parameters(&likely));
        }
    }
}
