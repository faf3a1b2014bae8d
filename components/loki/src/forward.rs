//! How the components of the family hand entries on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use corten_component::{Component, Context};
use corten_signal::{Fanout, Logs, Receiver};
use parking_lot::Mutex;

/// How often the log says that entries are dropped for a receiver.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// The receivers of a `forward_to`. What one of several does not take is counted and logged.
pub(crate) fn fanout<C: Component>(cx: &Context<C>, forward_to: Vec<Receiver<Logs>>) -> Fanout<Logs> {
    let dropped = cx.metrics().counters(
        "corten_forward_dropped_entries_total",
        "Entries that one of several receivers did not take in time or refused, while others took them.",
        &["receiver"],
    );
    let logger = cx.logger().clone();
    let warned = Mutex::new(None::<Instant>);
    Fanout::of(cx.ledger(), forward_to).with_on_lost(Arc::new(move |component, items, why| {
        dropped.with(&[component]).add(items as u64);
        let mut warned = warned.lock();
        if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            *warned = Some(Instant::now());
            let fields = [("receiver", component.into()), ("entries", items.into()), ("err", why.into())];
            logger.warn("dropped entries for one of several receivers", &fields);
        }
    }))
}
