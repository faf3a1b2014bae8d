//! Where telemetry leaves the program without a queue of requests: a log, a file. And what is told of all such places.

use std::sync::{Arc, Weak};
use std::time::SystemTime;

use corten_component::log::rfc3339;
use corten_component::{Component, Context, DebugInfo, LocalEnd};
use corten_config::encode::Item;
use corten_config::value::Value;
use corten_otlp::{OtlpLogs, OtlpMetrics, OtlpSignal, Traces};
use corten_signal::ledger::{End, EndSnapshot, Row};
use parking_lot::Mutex;

/// What an end is called that takes a signal: its place and the signal, because there is one for each.
pub(crate) fn end_name<S: OtlpSignal>(place: &str) -> String {
    format!("{place} ({})", S::NAME)
}

/// The ends of a component that writes all signals to one place.
#[derive(Debug)]
pub(crate) struct LocalEnds {
    pub(crate) traces: Arc<LocalEnd>,
    pub(crate) metrics: Arc<LocalEnd>,
    pub(crate) logs: Arc<LocalEnd>,
}

impl LocalEnds {
    /// The ends of a component, which are told of when they are asked for.
    pub(crate) fn new<C: Component>(cx: &Context<C>, place: &str) -> Arc<Self> {
        let ends = Arc::new(LocalEnds {
            traces: LocalEnd::new::<Traces>(cx.ledger(), end_name::<Traces>(place)),
            metrics: LocalEnd::new::<OtlpMetrics>(cx.ledger(), end_name::<OtlpMetrics>(place)),
            logs: LocalEnd::new::<OtlpLogs>(cx.ledger(), end_name::<OtlpLogs>(place)),
        });
        cx.show_debug_info(Arc::clone(&ends) as Arc<dyn DebugInfo>);
        ends
    }

    fn all(&self) -> [&Arc<LocalEnd>; 3] {
        [&self.traces, &self.metrics, &self.logs]
    }

    /// The place has this URL now.
    pub(crate) fn set_url(&self, url: &str) {
        self.all().iter().for_each(|end| end.set_url(url));
    }
}

impl DebugInfo for LocalEnds {
    fn debug_info(&self) -> Vec<Item> {
        self.all().iter().map(|end| debug_info(&end.snapshot())).collect()
    }
}

/// Tells of the ends of a component.
#[derive(Default)]
pub(crate) struct ShownEnds(Mutex<Vec<Weak<dyn End>>>);

impl ShownEnds {
    /// These are the ends from now on.
    pub(crate) fn set(&self, ends: Vec<Weak<dyn End>>) {
        *self.0.lock() = ends;
    }
}

impl DebugInfo for ShownEnds {
    fn debug_info(&self) -> Vec<Item> {
        let ends: Vec<Arc<dyn End>> = self.0.lock().iter().filter_map(Weak::upgrade).collect();
        ends.iter().map(|end| debug_info(&end.snapshot())).collect()
    }
}

fn debug_info(end: &EndSnapshot) -> Item {
    let attr = |name: &str, value: Value| Item::Attr { name: name.to_owned(), value };
    let mut body = vec![attr("name", Value::from(end.name.as_str()))];
    if !end.url.is_empty() {
        body.push(attr("url", Value::from(end.url.as_str())));
    }
    body.extend([
        attr("offered", Value::from(end.offered)),
        attr("restored", Value::from(end.restored)),
        attr("delivered", Value::from(end.delivered)),
        attr("pending", Value::from(end.pending)),
        attr("pending_bytes", Value::from(end.pending_bytes)),
        attr("in_flight", Value::from(end.in_flight)),
        attr("retries", Value::from(end.retries)),
    ]);
    if let Some(capacity) = end.capacity_bytes {
        body.push(attr("capacity_bytes", Value::from(capacity)));
    }
    if let Some(oldest_ms) = end.oldest_ms.and_then(|oldest| u64::try_from(oldest).ok()) {
        let oldest = SystemTime::UNIX_EPOCH.checked_add(std::time::Duration::from_millis(oldest_ms));
        body.extend(oldest.map(|oldest| attr("oldest_at", Value::from(rfc3339(oldest)))));
    }
    if let Some((at, text)) = &end.last_answer {
        body.push(attr("last_answer", Value::from(text.as_str())));
        body.push(attr("last_answer_at", Value::from(rfc3339(*at))));
    }
    for (reason, items) in &end.dropped {
        let dropped = vec![attr("reason", Value::from(reason.as_str())), attr("items", Value::from(*items))];
        body.push(Item::Block { name: "dropped".to_owned(), label: None, body: dropped });
    }
    Item::Block { name: "endpoint".to_owned(), label: None, body }
}

/// What was handed on of a batch that is not taken yet. Where whoever sent the batch sends it again, that is sent twice.
#[derive(Debug)]
#[must_use = "it counts as sent again"]
pub(crate) struct HandedOn {
    row: Arc<Row>,
    items: usize,
}

impl HandedOn {
    pub(crate) fn nothing(row: &Arc<Row>) -> Self {
        HandedOn { row: Arc::clone(row), items: 0 }
    }

    pub(crate) fn add(&mut self, items: usize) {
        self.items += items;
    }

    /// Adds what was handed on of another batch.
    pub(crate) fn join(&mut self, mut other: HandedOn) {
        self.items += std::mem::take(&mut other.items);
    }

    /// The batch is done with.
    pub(crate) fn for_good(mut self) {
        self.items = 0;
    }
}

impl Drop for HandedOn {
    fn drop(&mut self) {
        if self.items > 0 {
            let mut pass = self.row.pass();
            pass.handed_on(self.items);
        }
    }
}

#[cfg(test)]
mod tests {
    use corten_signal::Ledger;

    use super::super::testing::end_line;
    use super::*;

    #[test]
    fn what_an_end_takes_is_written_or_dropped_and_can_be_seen() {
        let ledger = Ledger::new("otelcol.exporter.file.a");
        let end = LocalEnd::new::<OtlpLogs>(&ledger, end_name::<OtlpLogs>("file"));
        assert!(ledger.snapshot().ends.is_empty(), "it is shown once there was something for it");
        let mut taken = end.take(3, 30);
        taken.join(end.take(2, 20));
        let now = ledger.snapshot().ends.remove(0);
        assert_eq!((end_line(&now).as_str(), now.pending_bytes), ("offered 5, pending 5", 50));
        assert!(now.oldest_ms.is_some());
        taken.delivered();
        let lost = end.take(1, 10);
        end.failed("no space left on device");
        drop(lost);
        let now = ledger.snapshot().ends.remove(0);
        assert_eq!(end_line(&now), "offered 6, delivered 5, dropped {write failed: 1}");
        assert_eq!((now.pending_bytes, now.oldest_ms, now.difference()), (0, None, 0));
        assert_eq!(ledger.row_of::<OtlpLogs>().snapshot().out, 6);
        let Item::Block { name, body, .. } = debug_info(&now) else { panic!("a block") };
        let attr = |wanted: &str| {
            body.iter().find_map(|item| match item {
                Item::Attr { name, value } if name == wanted => Some(value.to_string()),
                _ => None,
            })
        };
        assert_eq!(name, "endpoint");
        assert_eq!(attr("name").as_deref(), Some("\"file (logs)\""));
        assert_eq!(attr("delivered").as_deref(), Some("5"));
        assert_eq!(attr("last_answer").as_deref(), Some("\"no space left on device\""));
        assert!(body.iter().any(|item| matches!(item, Item::Block { name, .. } if name == "dropped")));
    }
}
