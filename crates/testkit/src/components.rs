//! Two components for tests of what surrounds components: `test.sink` takes samples, `test.source` sends them. Between them
//! they have all that the runtime and the API show: secrets, receivers, exports, health, metrics, HTTP and inner state.

use std::any::Any;
use std::sync::Arc;

use bytes::Bytes;
use corten_component::context::{DebugInfo, HttpHandler};
use corten_component::{Component, Context, Definition, Error, Health, HealthState};
use corten_config::decode::{CapsuleType, Secret};
use corten_config::encode::Item;
use corten_config::schema::CapsuleInfo;
use corten_config::value::{Capsule, Value};
use corten_config::{Arguments, Exports};
use corten_signal::flow::BoxFuture;

/// Both, sorted by name.
pub const COMPONENTS: &[Definition] = &[Definition::of::<Sink>(), Definition::of::<Source>()];

/// What takes samples: the id of a component.
#[derive(Clone, Debug, PartialEq)]
pub struct Receiver(String);

impl Capsule for Receiver {
    fn type_name(&self) -> &'static str {
        "storage.Appendable"
    }

    fn equals(&self, other: &dyn Capsule) -> bool {
        other.as_any().downcast_ref::<Self>() == Some(self)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl CapsuleType for Receiver {
    const INFO: &'static CapsuleInfo =
        &CapsuleInfo { type_name: "storage.Appendable", shown: "MetricsReceiver", object_like: false, from: &[] };
}

/// Takes samples.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct SinkArguments {
    /// What whoever sends them must know.
    password: Option<Secret>,
    /// Where to put them. A place `bad` makes the component unhealthy.
    #[arg(default = "nowhere")]
    place: String,
}

/// What others send samples to.
#[derive(Exports, Clone, Debug, PartialEq)]
pub struct SinkExports {
    /// Takes samples.
    receiver: Option<Receiver>,
    /// Where they are put.
    place: String,
}

/// The component `test.sink`.
#[derive(Debug)]
pub struct Sink;

impl Component for Sink {
    const NAME: &'static str = "test.sink";
    type Arguments = SinkArguments;
    type Exports = SinkExports;
    type Prepared = String;

    async fn prepare(
        arguments: SinkArguments,
        cx: &Context<Self>,
        _: Option<&Self>,
    ) -> Result<(String, SinkExports), Error> {
        let receiver = Some(Receiver(cx.id().to_owned()));
        Ok((arguments.place.clone(), SinkExports { receiver, place: arguments.place }))
    }

    fn commit(_: Option<Self>, place: String, cx: &Context<Self>) -> Self {
        // Some places are bad ones, which only the outside world tells.
        let bad = (place == "bad").then(|| Health::now(HealthState::Unhealthy, "no such place"));
        cx.report_health(bad);
        Sink
    }
}

/// Sends samples.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct SourceArguments {
    /// Where to send them.
    forward_to: Vec<Option<Receiver>>,
    /// What to call them.
    #[arg(optional)]
    name: String,
}

/// The component `test.source`. It counts seven samples at each start, answers HTTP with what it was asked, and tells a peer.
#[derive(Debug)]
pub struct Source;

impl Component for Source {
    const NAME: &'static str = "test.source";
    type Arguments = SourceArguments;
    type Exports = ();
    type Prepared = ();

    async fn prepare(_: SourceArguments, _: &Context<Self>, _: Option<&Self>) -> Result<((), ()), Error> {
        Ok(((), ()))
    }

    fn commit(_: Option<Self>, (): (), cx: &Context<Self>) -> Self {
        cx.metrics().counter("test_source_total", "Samples.").add(7);
        cx.serve_http(Arc::new(Echo));
        cx.show_debug_info(Arc::new(Told));
        Source
    }
}

/// Answers with what it was asked.
struct Echo;

impl HttpHandler for Echo {
    fn handle(&self, request: http::Request<()>) -> BoxFuture<'_, http::Response<Bytes>> {
        let text = format!("{} {}", request.method(), request.uri());
        Box::pin(async move { http::Response::new(Bytes::from(text)) })
    }
}

struct Told;

impl DebugInfo for Told {
    fn debug_info(&self) -> Vec<Item> {
        let attr = Item::Attr { name: "sent".to_owned(), value: Value::int(7) };
        vec![Item::Block { name: "peer".to_owned(), label: None, body: vec![attr] }]
    }
}
