//! `loki.enrich`.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use corten_component::{Component, Context, Error, Logger};
use corten_config::schema::Stability;
use corten_config::{Arguments, Exports};
use corten_signal::flow::BoxFuture;
use corten_signal::logs::StreamCache;
use corten_signal::target::Target;
use corten_signal::{
    Consume, ConsumeError, Fanout, Inlet, LabelError, LabelsBuilder, Logs, LogsBatch, Receiver, Stream,
};
use parking_lot::Mutex;

use crate::forward::fanout;
use crate::restream::restream;

/// Adds labels of discovered targets to log entries.
///
/// An entry belongs to the target whose `target_match_label` has the value of the entry's `logs_match_label`. The target's
/// labels take the place of the entry's own. Entries without such a target go on as they are.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct EnrichArguments {
    /// Where to send the entries.
    forward_to: Vec<Receiver<Logs>>,
    /// Targets whose labels to add. Of several with one value the last counts.
    targets: Vec<Target>,
    /// The label of a target by which it is found.
    target_match_label: String,
    /// The label of an entry that says which target it belongs to. Without it, `target_match_label`.
    #[arg(optional)]
    logs_match_label: String,
    /// The labels to add, those that have a value. Without any, all labels of the target, internal ones included.
    #[arg(optional)]
    labels_to_copy: Vec<String>,
}

/// What others can refer to.
#[derive(Exports, Clone, Debug, PartialEq)]
pub struct EnrichExports {
    /// Takes the entries that labels are added to.
    receiver: Receiver<Logs>,
}

/// The component.
pub struct Enrich {
    inlet: Arc<Inlet<Logs>>,
}

/// What is to be put in place.
pub struct Prepared {
    inlet: Arc<Inlet<Logs>>,
    arguments: EnrichArguments,
}

impl Component for Enrich {
    const NAME: &'static str = "loki.enrich";
    const STABILITY: Stability = Stability::Experimental;
    type Arguments = EnrichArguments;
    type Exports = EnrichExports;
    type Prepared = Prepared;

    async fn prepare(
        arguments: EnrichArguments,
        cx: &Context<Self>,
        current: Option<&Self>,
    ) -> Result<(Prepared, EnrichExports), Error> {
        let inlet = current.map_or_else(|| Arc::new(Inlet::of(cx.ledger())), |current| Arc::clone(&current.inlet));
        let exports = EnrichExports { receiver: inlet.receiver() };
        Ok((Prepared { inlet, arguments }, exports))
    }

    fn commit(_: Option<Self>, Prepared { inlet, arguments }: Prepared, cx: &Context<Self>) -> Self {
        let by = &arguments.target_match_label;
        let value_of = |target: &Target| target.get(by).filter(|value| !value.is_empty()).map(Box::from);
        let targets = arguments.targets.iter().filter_map(|target| Some((value_of(target)?, target.clone())));
        let match_label = if arguments.logs_match_label.is_empty() { by } else { &arguments.logs_match_label };
        inlet.attach(Arc::new(Stage {
            targets: targets.collect(),
            match_label: match_label.clone(),
            copied: arguments.labels_to_copy,
            cache: Mutex::default(),
            forward: fanout(cx, arguments.forward_to),
            logger: cx.logger().clone(),
        }));
        Enrich { inlet }
    }

    async fn drain(self, _: &Context<Self>) {
        self.inlet.close();
    }
}

struct Stage {
    targets: HashMap<Box<str>, Target>,
    match_label: String,
    copied: Vec<String>,
    cache: Mutex<StreamCache>,
    forward: Fanout<Logs>,
    logger: Logger,
}

impl Consume<Logs> for Stage {
    fn consume(&self, batch: LogsBatch) -> BoxFuture<'_, Result<(), ConsumeError>> {
        Box::pin(async move {
            let streams: Vec<Result<Stream, Infallible>> = {
                let mut cache = self.cache.lock();
                batch.entries.parts().map(|(stream, _)| Ok(self.enriched(&mut cache, stream))).collect()
            };
            self.forward.consume(restream(batch, &streams)).await
        })
    }
}

impl Stage {
    fn enriched(&self, cache: &mut StreamCache, stream: &Stream) -> Stream {
        let Some(target) = stream.labels().get(&self.match_label).and_then(|value| self.targets.get(value)) else {
            return stream.clone();
        };
        let made = cache.get_or_make(stream.labels().as_encoded(), || self.make(stream, target));
        made.unwrap_or_else(|error| {
            let fields = [("stream", stream.canonical().into()), ("err", error.to_string().into())];
            self.logger.warn("labels of a target could not be added", &fields);
            stream.clone()
        })
    }

    fn make(&self, stream: &Stream, target: &Target) -> Result<Stream, LabelError> {
        let mut labels = LabelsBuilder::new();
        stream.labels().iter().for_each(|(name, value)| labels.push(name, value));
        let all = self.copied.is_empty();
        for (name, value) in target.iter() {
            if all || (!value.is_empty() && self.copied.iter().any(|copied| copied == name)) {
                labels.remove(name);
                labels.push(name, value);
            }
        }
        Stream::new(&mut labels)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use corten_component::Definition;
    use corten_signal::Kind;
    use corten_signal::acks::Answer;
    use corten_testkit::{LogsSink, Unit, awaited_logs, host, logs};

    use super::*;

    const TARGETS: &str = r#"
        forward_to = [sink]
        targets    = [
            {hostname = "a", env = "old"},
            {hostname = "a", env = "prod", empty = "", __meta_x = "m", app = "target"},
            {hostname = "", env = "none"},
        ]
        target_match_label = "hostname"
    "#;

    async fn streams(more: &str, labels: &[&[(&str, &str)]]) -> Vec<String> {
        let sink = LogsSink::default();
        let body = format!("{TARGETS}\n{more}");
        let names = [("sink", sink.value())];
        let unit = Unit::start_with(host("loki.enrich.a"), &Definition::of::<Enrich>(), &body, &names).await.unwrap();
        for labels in labels {
            // The second time the outcome is remembered.
            unit.world.receiver::<Logs>("receiver").consume(logs(labels, &["x"])).await.unwrap();
            let (batch, mut waiter) = awaited_logs(labels, &["x"]);
            unit.world.receiver::<Logs>("receiver").consume(batch).await.unwrap();
            assert_eq!(waiter.wait(Duration::from_secs(1)).await, Answer::Safe);
        }
        let count = labels.len() * 2;
        assert_eq!(unit.world.balance_of(Kind::LokiLog), format!("taken {count}, out {count}"));
        let lines = sink.lines();
        assert!(lines.chunks(2).all(|pair| pair[0].stream == pair[1].stream));
        lines.into_iter().step_by(2).map(|line| line.stream).collect()
    }

    #[tokio::test]
    async fn all_labels_of_the_target_take_the_place_of_the_entrys() {
        let labels =
            [&[("hostname", "a"), ("app", "own")][..], &[("hostname", "b")], &[("app", "x")], &[("hostname", "")]];
        assert_eq!(
            streams("", &labels).await,
            [
                r#"{__meta_x="m", app="target", empty="", env="prod", hostname="a"}"#,
                r#"{hostname="b"}"#,
                r#"{app="x"}"#,
                r#"{hostname=""}"#,
            ]
        );
    }

    #[tokio::test]
    async fn some_labels_are_copied_and_the_entry_may_name_its_target_otherwise() {
        let more = "logs_match_label = \"host\"\nlabels_to_copy = [\"env\", \"empty\", \"absent\"]";
        let labels = [&[("host", "a"), ("app", "own")][..], &[("hostname", "a")]];
        assert_eq!(streams(more, &labels).await, [r#"{app="own", env="prod", host="a"}"#, r#"{hostname="a"}"#]);
    }
}
