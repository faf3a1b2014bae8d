//! `loki.relabel`.

use std::sync::Arc;

use corten_component::metrics::{Counter, Kind, Registry};
use corten_component::{Component, Context, Error, Logger};
use corten_config::arguments::CheckErrors;
use corten_config::{Arguments, Exports};
use corten_signal::flow::BoxFuture;
use corten_signal::ledger::{Pass, Row};
use corten_signal::logs::StreamCache;
use corten_signal::relabel::{NameScheme, RelabelRules, RelabelScratch, Rule, Rules};
use corten_signal::{
    Consume, ConsumeError, Fanout, Inlet, LabelError, LabelsBuilder, Logs, LogsBatch, Receiver, Stream,
};
use parking_lot::Mutex;

use crate::dropped::{Drops, Why};
use crate::forward::fanout;
use crate::restream::restream;

/// Rewrites the label sets of log entries with rules, and drops the entries that the rules drop.
///
/// The rules are applied in order to the label set of each entry, internal labels included, whose names begin with `__`.
/// An entry whose labels are all gone is dropped. What comes out is sent to all receivers of `forward_to`.
///
/// With an empty `forward_to` the component serves to write rules down: sources take its `rules`.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct RelabelArguments {
    /// Where to send what is kept.
    forward_to: Vec<Receiver<Logs>>,
    /// How many label sets to remember the outcome for.
    #[arg(default = 10000)]
    max_cache_size: i64,
    /// Rules to apply, in order.
    #[block(name = "rule")]
    rules: Vec<Rule>,
}

impl RelabelArguments {
    fn check_build(&self, _: corten_config::schema::Stability) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        errors.require(self.max_cache_size > 0, &["max_cache_size"], "must provide a positive size");
        errors.into_result()
    }
}

/// What others can refer to.
#[derive(Exports, Clone, Debug, PartialEq)]
pub struct RelabelExports {
    /// Takes the entries that are to be relabelled.
    receiver: Receiver<Logs>,
    /// The rules, for components that apply them themselves.
    rules: RelabelRules,
}

/// The component.
pub struct Relabel {
    inlet: Arc<Inlet<Logs>>,
}

/// What is to be put in place.
pub struct Prepared {
    inlet: Arc<Inlet<Logs>>,
    rules: Rules,
    cache_size: usize,
    forward_to: Vec<Receiver<Logs>>,
}

impl Component for Relabel {
    const NAME: &'static str = "loki.relabel";
    type Arguments = RelabelArguments;
    type Exports = RelabelExports;
    type Prepared = Prepared;

    async fn prepare(
        arguments: RelabelArguments,
        cx: &Context<Self>,
        current: Option<&Self>,
    ) -> Result<(Prepared, RelabelExports), Error> {
        let rules = Rules::new(&arguments.rules, NameScheme::Legacy)
            .map_err(|(place, error)| Error::new(format!("rule {}: {error}", place + 1)))?;
        let inlet = current.map_or_else(|| Arc::new(Inlet::of(cx.ledger())), |current| Arc::clone(&current.inlet));
        let exports =
            RelabelExports { receiver: inlet.receiver(), rules: RelabelRules(arguments.rules.as_slice().into()) };
        let cache_size = usize::try_from(arguments.max_cache_size).unwrap_or(1);
        Ok((Prepared { inlet, rules, cache_size, forward_to: arguments.forward_to }, exports))
    }

    fn commit(_: Option<Self>, prepared: Prepared, cx: &Context<Self>) -> Self {
        let state = Arc::new(Mutex::new(State {
            cache: StreamCache::new(prepared.cache_size),
            labels: LabelsBuilder::new(),
            scratch: RelabelScratch::default(),
        }));
        let counted = Arc::clone(&state);
        // Registered again, the size is that of the cache in use.
        let help = "Total size of relabel cache";
        cx.metrics().read("loki_relabel_cache_size", help, Kind::Gauge, &[], move || counted.lock().cache.len() as f64);
        prepared.inlet.attach(Arc::new(Stage {
            rules: prepared.rules,
            state,
            forward: fanout(cx, prepared.forward_to),
            row: Arc::clone(cx.ledger().row_of::<Logs>()),
            metrics: RelabelMetrics::new(cx.metrics()),
            logger: cx.logger().clone(),
        }));
        Relabel { inlet: prepared.inlet }
    }

    async fn drain(self, _: &Context<Self>) {
        self.inlet.close();
    }
}

#[derive(Clone, Debug)]
struct RelabelMetrics {
    processed: Counter,
    written: Counter,
    hits: Counter,
    misses: Counter,
}

impl RelabelMetrics {
    fn new(registry: &Registry) -> Self {
        RelabelMetrics {
            processed: registry.counter("loki_relabel_entries_processed", "Total number of log entries processed"),
            written: registry.counter("loki_relabel_entries_written", "Total number of log entries forwarded"),
            hits: registry.counter("loki_relabel_cache_hits", "Total number of cache hits"),
            misses: registry.counter("loki_relabel_cache_misses", "Total number of cache misses"),
        }
    }
}

struct Stage {
    rules: Rules,
    state: Arc<Mutex<State>>,
    forward: Fanout<Logs>,
    row: Arc<Row>,
    metrics: RelabelMetrics,
    logger: Logger,
}

struct State {
    /// What each stream becomes, or why it is dropped.
    cache: StreamCache<Result<Stream, Why>>,
    labels: LabelsBuilder,
    scratch: RelabelScratch,
}

impl Consume<Logs> for Stage {
    fn consume(&self, batch: LogsBatch) -> BoxFuture<'_, Result<(), ConsumeError>> {
        Box::pin(async move {
            let mut pass = self.row.pass();
            let batch = self.relabel(batch, &mut pass);
            if batch.entries.is_empty() {
                batch.acks.safe();
                return pass.end(Ok(()));
            }
            let written = batch.entries.len() as u64;
            pass.end(self.forward.consume(batch).await)?;
            self.metrics.written.add(written);
            Ok(())
        })
    }
}

impl Stage {
    fn relabel(&self, batch: LogsBatch, pass: &mut Pass<'_>) -> LogsBatch {
        let entries = &batch.entries;
        self.metrics.processed.add(entries.len() as u64);
        let streams: Vec<Result<Stream, Why>> = {
            let mut state = self.state.lock();
            entries.parts().map(|(stream, list)| self.outcome(&mut state, stream, list.len() as u64)).collect()
        };
        let mut drops = Drops::default();
        for (stream, (_, list)) in streams.iter().zip(entries.parts()) {
            if let Err(why) = stream {
                drops.add(*why, list.len());
            }
        }
        drops.count_in(pass, &self.rules);
        restream(batch, &streams)
    }

    /// What a stream becomes that has so many entries in a batch, or why it is dropped.
    fn outcome(&self, state: &mut State, stream: &Stream, entries: u64) -> Result<Stream, Why> {
        let State { cache, labels, scratch } = state;
        let mut misses = 0;
        let outcome = cache.get_or_make(stream.labels().as_encoded(), || {
            misses = 1;
            self.apply_rules(stream, labels, scratch)
        });
        self.metrics.misses.add(misses);
        self.metrics.hits.add(entries.saturating_sub(misses));
        outcome.unwrap_or_else(|error| {
            let fields = [("stream", stream.canonical().into()), ("err", error.to_string().into())];
            self.logger.warn("dropped entries whose new labels are not valid", &fields);
            Err(Why::INVALID_LABELS)
        })
    }

    fn apply_rules(
        &self,
        stream: &Stream,
        labels: &mut LabelsBuilder,
        scratch: &mut RelabelScratch,
    ) -> Result<Result<Stream, Why>, LabelError> {
        labels.clear();
        // To the rules a label without a value is none.
        stream.labels().iter().filter(|(_, value)| !value.is_empty()).for_each(|(n, v)| labels.push(n, v));
        if let Err(place) = self.rules.apply_why(labels, scratch) {
            return Ok(Err(Why::Rule(place)));
        }
        labels.retain(|_, value| !value.is_empty());
        if labels.is_empty() { Ok(Err(Why::NO_LABELS)) } else { Stream::new(labels).map(Ok) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use corten_component::Definition;
    use corten_signal::Kind as Signals;
    use corten_signal::acks::Answer;
    use corten_testkit::{LogsSink, Unit, awaited_logs, host, logs};

    use super::*;

    async fn start(sink: &LogsSink, body: &str) -> Unit {
        let body = format!("forward_to = [sink]\n{body}");
        let definition = Definition::of::<Relabel>();
        Unit::start_with(host("loki.relabel.a"), &definition, &body, &[("sink", sink.value())]).await.unwrap()
    }

    const RULES: &str = r#"
        rule {
            source_labels = ["__host"]
            target_label  = "host"
        }
        rule {
            source_labels = ["level"]
            regex         = "debug"
            action        = "drop"
        }
        rule {
            regex  = "secret"
            action = "labeldrop"
        }"#;

    #[tokio::test]
    async fn labels_are_rewritten_and_internal_ones_stay() {
        let sink = LogsSink::default();
        let unit = start(&sink, RULES).await;
        let receiver = unit.world.receiver::<Logs>("receiver");
        for (labels, expected) in [
            (&[("__host", "a"), ("level", "info"), ("empty", "")][..], Some(r#"{__host="a", host="a", level="info"}"#)),
            (&[("__host", "a"), ("level", "debug")], None),
            (&[("secret", "x")], None),
            (&[("app", "x")], Some(r#"{app="x"}"#)),
        ] {
            let before = sink.len();
            let (batch, mut waiter) = awaited_logs(labels, &["one", "two"]);
            receiver.consume(batch).await.unwrap();
            assert_eq!(waiter.wait(Duration::from_secs(1)).await, Answer::Safe);
            let seen: Vec<_> = sink.lines()[before..].iter().map(|line| line.stream.clone()).collect();
            assert_eq!(seen, expected.map_or(vec![], |stream| vec![stream; 2]), "{labels:?}");
        }
        assert_eq!(sink.texts(), ["one", "two", "one", "two"]);
        let metric = |name: &str| unit.world.metric(name);
        assert_eq!(metric("loki_relabel_entries_processed"), Some(8.0));
        assert_eq!(metric("loki_relabel_entries_written"), Some(4.0));
        assert_eq!(metric("loki_relabel_cache_misses"), Some(4.0));
        assert_eq!(metric("loki_relabel_cache_hits"), Some(4.0));
        assert_eq!(metric("loki_relabel_cache_size"), Some(4.0));
        let expected = "taken 8, out 4, dropped {no labels: 2, rule 2 drop: 2}";
        assert_eq!(unit.world.balance_of(Signals::LokiLog), expected);
    }

    #[tokio::test]
    async fn other_rules_apply_from_the_next_batch_on() {
        let sink = LogsSink::default();
        let mut unit = start(&sink, RULES).await;
        let receiver = unit.world.receiver::<Logs>("receiver");
        receiver.consume(logs(&[("app", "x")], &["a"])).await.unwrap();
        let rule = "rule {\nreplacement = \"y\"\ntarget_label = \"app\"\n}";
        unit.update(&format!("forward_to = [sink]\n{rule}")).await.unwrap();
        receiver.consume(logs(&[("app", "x")], &["a"])).await.unwrap();
        let streams: Vec<_> = sink.lines().into_iter().map(|line| line.stream).collect();
        assert_eq!(streams, [r#"{app="x"}"#, r#"{app="y"}"#]);
        unit.drain().await;
        assert!(receiver.consume(logs(&[("app", "x")], &["a"])).await.is_err());
    }

    #[tokio::test]
    async fn a_cache_needs_a_size() {
        let body = "forward_to = []\nmax_cache_size = 0";
        let error = Unit::start(host("loki.relabel.a"), &Definition::of::<Relabel>(), body).await.unwrap_err();
        assert!(error.ends_with("must provide a positive size"), "{error}");
    }

    #[tokio::test]
    async fn what_the_next_component_refuses_is_not_counted_as_written() {
        let sink = LogsSink::default();
        let mut unit = start(&sink, "").await;
        sink.answer_with(Some(ConsumeError::Refused { reason: "no".to_owned() }));
        let (batch, mut waiter) = awaited_logs(&[("a", "b")], &["x"]);
        assert!(unit.world.receiver::<Logs>("receiver").consume(batch).await.is_err());
        assert_eq!(waiter.wait(Duration::from_secs(1)).await, Answer::Failed);
        assert_eq!(unit.world.metric("loki_relabel_entries_written"), Some(0.0));
        let dropped = "rule {\nsource_labels = [\"a\"]\nregex = \"b\"\naction = \"drop\"\n}";
        unit.update(&format!("forward_to = [sink]\n{dropped}")).await.unwrap();
        // What is dropped of a batch that is refused is dropped when it comes again.
        let mut builder = corten_signal::EntriesBuilder::new();
        for app in ["b", "c"] {
            let part = builder.stream(&Stream::of([("a", app)]).unwrap());
            let line = builder.own(b"x");
            builder.push(part, 0, line);
        }
        let batch = LogsBatch::of(builder.finish(0));
        let receiver = unit.world.receiver::<Logs>("receiver");
        assert!(receiver.consume(batch.clone()).await.is_err());
        assert_eq!(unit.world.balance_of(Signals::LokiLog), "");
        sink.answer_with(None);
        receiver.consume(batch).await.unwrap();
        assert_eq!(unit.world.balance_of(Signals::LokiLog), "taken 2, out 1, dropped {rule 1 drop: 1}");
    }
}
