//! The `tracing` block.

mod pump;
mod remote;

use std::sync::Arc;
use std::time::Duration;

use corten_component::trace::{Ratio, Sampler, Tracing as Settings};
use corten_component::{Component, Context, Error, Task};
use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_otlp::{Consumer, Traces};
use corten_signal::Receiver;
use tokio::sync::mpsc;

use self::pump::{Books, Pump};
use self::remote::Remote;

/// What the program calls itself in spans, and when it asks how to sample: what existing dashboards look for.
const SERVICE_NAME: &str = "alloy";

/// How many spans wait to be sent, at most.
const WAITING_MAX: usize = 2048;

/// Makes spans of the program's own work, to see what it does: loads and evaluations of the configuration, what the HTTP server
/// is asked for, and the requests that components send. Exporters of `otelcol` are the exception: the spans of sending spans
/// would never end.
///
/// Nothing waits for those spans: what is not taken in time is dropped and counted. Without the block, or without `write_to`,
/// no spans are made.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct Config {
    /// The part of traces that is kept, from 0 to 1. What begins with a request that tells of its own trace follows the
    /// decision that was made there.
    #[arg(default = 0.1)]
    sampling_fraction: f64,
    /// Components that get the spans.
    #[arg(default = [])]
    write_to: Vec<Consumer>,
    /// Whether requests that are sent tell their receiver of the trace that they belong to, in a `traceparent` header.
    #[arg(default = false)]
    send_traceparent: bool,
    /// Decides otherwise which traces are kept.
    #[block(optional)]
    sampler: Choice,
}

/// Decides which traces are kept.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub struct Choice {
    /// Asks a Jaeger server, which decides for each service and operation. Until it has answered, `sampling_fraction` counts.
    #[block(optional)]
    jaeger_remote: Option<JaegerRemote>,
}

/// How to ask a Jaeger server.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct JaegerRemote {
    /// Where it answers.
    #[arg(default = "http://127.0.0.1:5778/sampling")]
    url: String,
    /// How many operations it may decide for by name; others get its default.
    #[arg(default = 256)]
    max_operations: usize,
    /// How often to ask.
    #[arg(default = "1m")]
    refresh_interval: Duration,
}

impl Config {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        errors.require(
            (0.0..=1.0).contains(&self.sampling_fraction),
            &["sampling_fraction"],
            "sampling_fraction must be between 0 and 1",
        );
        errors.into_result()
    }
}

impl JaegerRemote {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        let url = self.url.parse::<http::Uri>();
        errors.require(
            url.is_ok_and(|url| url.host().is_some() && url.scheme().is_some()),
            &["url"],
            "url must be a whole URL, such as http://127.0.0.1:5778/sampling",
        );
        errors.require(
            !self.refresh_interval.is_zero(),
            &["refresh_interval"],
            "refresh_interval must be greater than 0",
        );
        errors.into_result()
    }
}

/// The block in place.
#[derive(Debug)]
pub struct Tracing {
    tasks: Vec<Task>,
    books: Arc<Books>,
}

impl Component for Tracing {
    const NAME: &'static str = "tracing";
    type Arguments = Config;
    type Exports = ();
    type Prepared = (Config, Option<Remote>);

    async fn prepare(config: Config, cx: &Context<Self>, _: Option<&Self>) -> Result<(Self::Prepared, ()), Error> {
        let remote = match &config.sampler.jaeger_remote {
            Some(settings) => Some(Remote::new(settings, Ratio::new(config.sampling_fraction), cx).await?),
            None => None,
        };
        Ok(((config, remote), ()))
    }

    fn commit(current: Option<Self>, (config, remote): Self::Prepared, cx: &Context<Self>) -> Self {
        let dropped = cx.metrics().counter(
            "corten_tracing_dropped_spans_total",
            "Spans of the program's own work that were not taken in time.",
        );
        let books = current.as_ref().map(|current| Arc::clone(&current.books));
        let books = books.unwrap_or_else(|| Arc::new(Books::new(cx, dropped.clone())));
        // What the tasks before still have goes where it was to go.
        drop(current);
        let write_to: Vec<Receiver<Traces>> =
            config.write_to.iter().map(|consumer| consumer.traces.clone()).filter(Receiver::leads_somewhere).collect();
        let tracer = &cx.services().tracer;
        if write_to.is_empty() {
            tracer.configure(None);
            return Tracing { tasks: Vec::new(), books };
        }
        let mut tasks = Vec::new();
        let sampler: Arc<dyn Sampler> = match remote {
            Some(remote) => {
                tasks.push(remote.start(cx));
                Arc::new(remote)
            }
            None => Arc::new(Ratio::new(config.sampling_fraction)),
        };
        let (ended, arriving) = mpsc::channel(WAITING_MAX);
        tasks.push(Pump::new(cx, write_to, Arc::clone(&books)).start(cx, arriving));
        tracer.configure(Some(Arc::new(Settings {
            sampler,
            ended,
            dropped,
            send_traceparent: config.send_traceparent,
        })));
        Tracing { tasks, books }
    }

    async fn drain(self, cx: &Context<Self>) {
        // The pump hands on what has ended until now, and ends.
        cx.services().tracer.configure(None);
        for task in self.tasks {
            task.stop().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use corten_component::Definition;
    use corten_component::trace::{SpanKind, Tracer};
    use corten_signal::{ConsumeError, Kind};
    use corten_testkit::{OtlpSink, Server, Unit, answer, host, until};

    use super::*;

    async fn start(sink: &OtlpSink, body: &str) -> Result<Unit, String> {
        Unit::start_with(host("tracing"), &Definition::of::<Tracing>(), body, &[("sink", sink.value())]).await
    }

    fn tracer(unit: &Unit) -> Tracer {
        unit.world.host().services.tracer.clone()
    }

    #[tokio::test]
    async fn spans_arrive_and_those_that_ended_before_the_stop_do_too() {
        let sink = OtlpSink::default();
        let mut unit = start(&sink, "sampling_fraction = 1\nwrite_to = [sink]").await.unwrap();
        let mut span = tracer(&unit).root("GraphEvaluate", SpanKind::Internal);
        span.text("alloy.controller_id", "");
        span.child("EvaluateNode", SpanKind::Internal).fail("no luck");
        drop(span);
        unit.drain().await;
        assert_eq!(unit.world.balance_of(Kind::OtelTrace), "received 2, out 2");
        let batches = sink.batches();
        assert!(batches.iter().all(|batch| batch.signal == "traces"));
        assert_eq!(sink.items(), 2);
        let json: String = batches.iter().map(|batch| &*batch.json).collect();
        for part in [
            r#""key":"service.name","value":{"stringValue":"alloy"}"#,
            r#""name":"EvaluateNode","kind":1"#,
            r#""status":{"message":"no luck","code":2}"#,
        ] {
            assert!(json.contains(part), "{part}: {json}");
        }
    }

    #[tokio::test]
    async fn spans_that_nobody_takes_or_that_find_no_room_are_counted() {
        let sink = OtlpSink::default();
        let mut unit = start(&sink, "sampling_fraction = 1\nwrite_to = [sink]").await.unwrap();
        sink.answer_with(Some(ConsumeError::Refused { reason: "no".to_owned() }));
        // All at once, so that nobody makes room meanwhile.
        (0..WAITING_MAX + 3).for_each(|_| drop(tracer(&unit).root("x", SpanKind::Internal)));
        unit.drain().await;
        let expected = format!("received {}, dropped {{queue full: 3, refused: {WAITING_MAX}}}", WAITING_MAX + 3);
        assert_eq!(unit.world.balance_of(Kind::OtelTrace), expected);
    }

    #[tokio::test]
    async fn without_a_receiver_or_by_decision_no_span_is_made() {
        let sink = OtlpSink::default();
        let unit = start(&sink, "sampling_fraction = 1").await.unwrap();
        assert!(tracer(&unit).root("x", SpanKind::Internal).trace_id().is_none());
        let unit = start(&sink, "sampling_fraction = 0\nwrite_to = [sink]").await.unwrap();
        assert!(tracer(&unit).root("x", SpanKind::Internal).trace_id().is_none());
    }

    #[tokio::test]
    async fn a_jaeger_server_decides_once_it_has_answered() {
        let server = Server::start(|_| answer(200, &[], r#"{"probabilisticSampling":{"samplingRate":1}}"#)).await;
        let sink = OtlpSink::default();
        let body = format!(
            "sampling_fraction = 0\nwrite_to = [sink]\nsampler {{\njaeger_remote {{\nurl = \"{}\"\n}}\n}}",
            server.url("/sampling")
        );
        let unit = start(&sink, &body).await.unwrap();
        until("the server decides", || tracer(&unit).root("x", SpanKind::Internal).trace_id().is_some()).await;
        assert_eq!(server.seen()[0].target, "/sampling?service=alloy");
    }

    #[tokio::test]
    async fn what_cannot_be_is_refused() {
        let sink = OtlpSink::default();
        for (body, why) in [
            ("sampling_fraction = 1.5", "sampling_fraction must be between 0 and 1"),
            ("sampler {\njaeger_remote {\nurl = \"localhost\"\n}\n}", "url must be a whole URL"),
            ("sampler {\njaeger_remote {\nrefresh_interval = \"0s\"\n}\n}", "refresh_interval must be greater than 0"),
        ] {
            let error = start(&sink, body).await.err().unwrap();
            assert!(error.to_string().contains(why), "{error}");
        }
    }
}
