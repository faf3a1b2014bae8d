//! `loki.echo`.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use corten_component::log::{Level, Logger, rfc3339};
use corten_component::{Component, Context, Error, LocalEnd};
use corten_config::{Arguments, Exports};
use corten_signal::flow::BoxFuture;
use corten_signal::{Consume, ConsumeError, Inlet, Logs, LogsBatch, Receiver};

/// Writes the log entries that it is sent to the program's own log, one line an entry, to look at what flows through a
/// pipeline.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct EchoArguments {}

/// What others can refer to.
#[derive(Exports, Clone, Debug, PartialEq)]
pub struct EchoExports {
    /// Takes the entries that are to be written.
    receiver: Receiver<Logs>,
}

/// The component.
pub struct Echo {
    inlet: Arc<Inlet<Logs>>,
    log: Arc<LocalEnd>,
}

impl Component for Echo {
    const NAME: &'static str = "loki.echo";
    type Arguments = EchoArguments;
    type Exports = EchoExports;
    type Prepared = Arc<Inlet<Logs>>;

    async fn prepare(
        _: EchoArguments,
        cx: &Context<Self>,
        current: Option<&Self>,
    ) -> Result<(Arc<Inlet<Logs>>, EchoExports), Error> {
        let inlet = current.map_or_else(|| Arc::new(Inlet::of(cx.ledger())), |current| Arc::clone(&current.inlet));
        let exports = EchoExports { receiver: inlet.receiver() };
        Ok((inlet, exports))
    }

    fn commit(current: Option<Self>, inlet: Arc<Inlet<Logs>>, cx: &Context<Self>) -> Self {
        let log = current.map_or_else(|| LocalEnd::new::<Logs>(cx.ledger(), "log"), |current| current.log);
        log.show();
        inlet.attach(Arc::new(Stage { logger: cx.logger().clone(), log: Arc::clone(&log) }));
        Echo { inlet, log }
    }

    async fn drain(self, _: &Context<Self>) {
        self.inlet.close();
    }
}

struct Stage {
    logger: Logger,
    log: Arc<LocalEnd>,
}

impl Consume<Logs> for Stage {
    fn consume(&self, batch: LogsBatch) -> BoxFuture<'_, Result<(), ConsumeError>> {
        Box::pin(async move {
            let entries = batch.entries.len();
            let is_written = self.logger.takes(Level::Info);
            if is_written {
                self.write(&batch);
            }
            let taken = self.log.take(entries, 0);
            match is_written {
                true => taken.delivered(),
                false => taken.below_level(),
            }
            batch.acks.safe();
            Ok(())
        })
    }
}

impl Stage {
    fn write(&self, batch: &LogsBatch) {
        let entries = &batch.entries;
        for (stream, list) in entries.parts() {
            let labels = stream.canonical();
            for entry in list {
                let mut metadata = serde_json::Map::new();
                for (name, value) in entries.metadata(entry) {
                    metadata.insert(lossy(name), lossy(value).into());
                }
                let mut shown = String::new();
                // Writing to a string cannot fail.
                let _ = write!(shown, "{}", serde_json::Value::Object(metadata));
                self.logger.info(
                    "received log entry",
                    &[
                        ("entry", lossy(entries.line(entry)).into()),
                        ("entry_timestamp", rfc3339(time(entry.timestamp_ns)).into()),
                        ("labels", (&labels).into()),
                        ("structured_metadata", shown.into()),
                    ],
                );
            }
        }
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn time(timestamp_ns: i64) -> SystemTime {
    let distance = Duration::from_nanos(timestamp_ns.unsigned_abs());
    let time = if timestamp_ns < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    time.unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use corten_component::Definition;
    use corten_signal::Kind;
    use corten_signal::acks::Answer;
    use corten_testkit::{Unit, awaited_logs, host};

    use super::*;

    #[tokio::test]
    async fn an_entry_is_a_line_of_the_log() {
        let unit = Unit::start(host("loki.echo.a"), &Definition::of::<Echo>(), "").await.unwrap();
        let receiver = unit.world.receiver::<Logs>("receiver");
        let (batch, mut waiter) = awaited_logs(&[("app", "x"), ("__i", "y")], &["hello \"you\""]);
        receiver.consume(batch).await.unwrap();
        assert_eq!(waiter.wait(Duration::from_secs(1)).await, Answer::Safe);
        let expected = "level=info msg=\"received log entry\" component_id=loki.echo.a entry=\"hello \\\"you\\\"\" \
                        entry_timestamp=1970-01-01T00:00:00.000000001Z labels=\"{__i=\\\"y\\\", app=\\\"x\\\"}\" \
                        structured_metadata={}\n";
        assert!(unit.world.logs().ends_with(expected), "{}", unit.world.logs());
        unit.world.host().logger.sink().configure(Level::Warn, corten_component::log::Format::Logfmt);
        receiver.consume(corten_testkit::logs(&[], &["a", "b"])).await.unwrap();
        assert_eq!(unit.world.balance_of(Kind::LokiLog), "taken 3, out 3");
        let end = &unit.world.balance().ends[0];
        assert_eq!((end.offered, end.delivered, &*end.dropped), (3, 1, &[("log level".to_owned(), 2)][..]));
    }

    #[test]
    fn times_before_1970_and_far_from_it_can_be_shown() {
        assert_eq!(rfc3339(time(-1)), "1969-12-31T23:59:59.999999999Z");
        assert_eq!(rfc3339(time(i64::MAX)), "2262-04-11T23:47:16.854775807Z");
    }
}
