//! `prometheus.exporter.self`.

use std::sync::Arc;

use bytes::Bytes;
use corten_component::metrics::{Counter, Gauge, Snapshot};
use corten_component::{Component, Context, Error, HttpHandler};
use corten_config::Arguments;
use corten_signal::flow::BoxFuture;
use http::{Request, Response};

use crate::exposition::Negotiated;
use crate::target::{ExporterExports, host_instance};

/// Exports the program's own metrics, the same as `/metrics` of its HTTP server.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct SelfArguments {}

/// The component.
pub struct SelfExporter;

impl Component for SelfExporter {
    const NAME: &'static str = "prometheus.exporter.self";
    type Arguments = SelfArguments;
    type Exports = ExporterExports;
    type Prepared = ();

    async fn prepare(_: SelfArguments, cx: &Context<Self>, _: Option<&Self>) -> Result<((), ExporterExports), Error> {
        Ok(((), ExporterExports::of(cx, "self", &host_instance())?))
    }

    fn commit(_: Option<Self>, (): (), cx: &Context<Self>) -> Self {
        let name = "promhttp_metric_handler_requests_total";
        let requests = cx.metrics().counters(name, "Total number of scrapes by HTTP status code.", &["code"]);
        // These two are part of what the reference exports. Gathering does not fail here.
        for code in ["500", "503"] {
            requests.with(&[code]);
        }
        let name = "promhttp_metric_handler_requests_in_flight";
        cx.serve_http(Arc::new(Handler {
            gather: Arc::clone(&cx.services().gather),
            served: requests.with(&["200"]),
            in_flight: cx.metrics().gauge(name, "Current number of scrapes being served."),
        }));
        SelfExporter
    }
}

/// Answers with all metrics of the process, under whatever path.
struct Handler {
    gather: Arc<dyn Fn() -> Snapshot + Send + Sync>,
    served: Counter,
    in_flight: Gauge,
}

impl HttpHandler for Handler {
    fn handle(&self, request: Request<()>) -> BoxFuture<'_, Response<Bytes>> {
        Box::pin(async move {
            // What is gathered tells of this very scrape as being served, and of those before it as served.
            self.in_flight.add(1.0);
            let text = (self.gather)().to_text();
            self.in_flight.add(-1.0);
            self.served.inc();
            Negotiated::of(request.headers(), false).answer(text)
        })
    }
}

#[cfg(test)]
mod tests {
    use corten_component::Definition;
    use corten_component::metrics::{Kind, Value};
    use corten_testkit::{Unit, World, labels};

    use super::*;

    #[tokio::test]
    async fn the_metrics_of_the_process_are_served() {
        let world = World::with("prometheus.exporter.self.a", |services| {
            services.gather = Arc::new(|| {
                let mut snapshot = Snapshot::default();
                let labels = vec![("component_id".to_owned(), "b".to_owned())];
                snapshot.add("own_total", "Own.", Kind::Counter, labels, Value::Number(1.0));
                snapshot
            });
        });
        let mut unit = Unit::start(world, &Definition::of::<SelfExporter>(), "").await.unwrap();
        let targets = unit.world.exports()[0].field("targets").unwrap();
        let instance = format!("instance={} job=integrations/self", host_instance());
        assert!(labels(&targets)[0].ends_with(&instance), "{:?}", labels(&targets));
        let handler = unit.world.host().handler.lock().clone().expect("it answers requests");
        for path in ["/metrics", "/anything"] {
            let request = Request::get(path).header("accept", "application/openmetrics-text;version=1.0.0");
            let response = handler.handle(request.body(()).unwrap()).await;
            assert_eq!(response.status(), 200);
            assert_eq!(
                response.headers()["content-type"],
                "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"
            );
            let text = "# HELP own_total Own.\n# TYPE own_total counter\nown_total{component_id=\"b\"} 1\n";
            assert_eq!(*response.body(), text);
        }
        let requests = |code| unit.world.metrics().get("promhttp_metric_handler_requests_total", &[("code", code)]);
        assert_eq!((requests("200"), requests("500"), requests("503")), (Some(2.0), Some(0.0), Some(0.0)));
        assert_eq!(unit.world.metric("promhttp_metric_handler_requests_in_flight"), Some(0.0));
        unit.drain().await;
    }

    #[tokio::test]
    async fn a_scrape_sees_itself_being_served() {
        let registry: Arc<std::sync::OnceLock<corten_component::metrics::Registry>> = Arc::default();
        let of_component = Arc::clone(&registry);
        let world = World::with("prometheus.exporter.self.a", |services| {
            services.gather = Arc::new(move || {
                let mut snapshot = Snapshot::default();
                of_component.get().unwrap().gather(&[], &mut snapshot);
                snapshot
            });
        });
        registry.set(world.context::<SelfExporter>().metrics().clone()).unwrap();
        let mut unit = Unit::start(world, &Definition::of::<SelfExporter>(), "").await.unwrap();
        let handler = unit.world.host().handler.lock().clone().expect("it answers requests");
        for served in ["0", "1"] {
            let response = handler.handle(Request::get("/metrics").body(()).unwrap()).await;
            let text = String::from_utf8(response.body().to_vec()).unwrap();
            assert!(text.contains("\npromhttp_metric_handler_requests_in_flight 1\n"), "{text}");
            let line = format!("\npromhttp_metric_handler_requests_total{{code=\"200\"}} {served}\n");
            assert!(text.contains(&line), "{text}");
        }
        unit.drain().await;
    }
}
