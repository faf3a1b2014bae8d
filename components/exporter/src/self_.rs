//! `prometheus.exporter.self`.

use std::sync::Arc;

use bytes::Bytes;
use corten_component::metrics::Snapshot;
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
        cx.serve_http(Arc::new(Handler(Arc::clone(&cx.services().gather))));
        SelfExporter
    }
}

/// Answers with all metrics of the process, under whatever path.
struct Handler(Arc<dyn Fn() -> Snapshot + Send + Sync>);

impl HttpHandler for Handler {
    fn handle(&self, request: Request<()>) -> BoxFuture<'_, Response<Bytes>> {
        Box::pin(async move { Negotiated::of(request.headers(), false).answer((self.0)().to_text()) })
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
        unit.drain().await;
    }
}
